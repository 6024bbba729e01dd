"""The cases in a folder: one JSON file a case, named by its id.

An id is a digest of graph, promise and minimal plan. Each recorded replay adds an entry to `observed` in the file of its case. The entries
tell whether an upgrade fixed the bug. Another process may write to the same folder.
"""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterator
from pathlib import Path

from graphquake.harness.errors import InputError
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.table import did_you_mean
from graphquake.machines.cases.case import Case
from graphquake.machines.cases.case_file import case_text, read_case


class Corpus:
    """The cases in one folder.

    Args:
        folder: the folder of the cases, to which new ones are saved too. It need not exist yet.
        shipped: a folder of cases that came with Graphquake. A case with the same id in `folder` replaces the shipped one.
        only: if given, the name of the only file to read.

    Raises:
        InputError: if a case is damaged or of a newer schema.
    """

    def __init__(self, folder: Path, shipped: Path | None = None, *, only: str = "") -> None:
        self.folder = folder
        self._pattern = glob.escape(only) if only else "*.json"
        self._cases: dict[str, Case] = {}
        for path in sorted(shipped.glob("*.json")) if shipped else []:
            self._read(path)
        self._shipped = dict(self._cases)
        self.refresh()

    def refresh(self) -> None:
        """Read the folder again: another process may have saved a case there, and a user may have removed one.

        Raises:
            InputError: if a case is damaged or of a newer schema.
        """
        there = {id_ for id_ in self._cases if (self.folder / f"{id_}.json").exists()}
        self._cases = self._shipped | {id_: self._cases[id_] for id_ in there}
        for path in sorted(self.folder.glob(self._pattern)):
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return  # Another process has just removed it.
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: is damaged: {error}") from None
        case = read_case(str(path), text)
        if case.id != path.stem:
            raise InputError(
                f"{path}: id: found {case.id}, expected {path.stem}, the name of the file"
            )
        self._cases[case.id] = case

    def __iter__(self) -> Iterator[Case]:
        return iter(tuple(self._cases.values()))

    def of(self, spec: GraphSpec) -> list[Case]:
        """The cases of a graph."""
        return [case for case in self if case.is_of(spec)]

    def get(self, id_: str) -> Case:
        """The case with this id.

        Raises:
            InputError: if no case has this id.
        """
        if id_ not in self._cases:
            raise InputError(f'{self.folder}: has no case "{id_}"{did_you_mean(id_, self._cases)}')
        return self._cases[id_]

    def path(self, case: Case) -> Path:
        """The path of a case's file."""
        return self.folder / f"{case.id}.json"

    def drop(self, case: Case) -> None:
        """Remove a case, and its file."""
        self.path(case).unlink(missing_ok=True)
        self._cases.pop(case.id, None)

    def save(self, case: Case) -> Path:
        """Write a case, completely or not at all, and return the path of its file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = case_text(case)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=self.folder, prefix=".case-", delete=False
        ) as file:
            file.write(text)
        written = Path(file.name)
        written.chmod(0o644)
        written.replace(self.path(case))
        self._cases[case.id] = case
        return self.path(case)

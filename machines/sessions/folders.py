"""The folders that a session writes: results, cases and reports. They are tried before anything is started."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Final

from graphquake.harness.errors import InputError
from graphquake.harness.spec.graph import GraphSpec, built_in_graphs
from graphquake.machines.cases.case import Case
from graphquake.machines.cases.corpus import Corpus

# The number of runs of earlier commands that stay in a folder. The page of a run alone takes half a megabyte.
RUNS_KEPT: Final = 100


def corpus_folder(spec: GraphSpec, chosen: Path | None = None) -> Path:
    """The folder of a graph's cases: `regressions`, beside the graph file.

    The cases of a ready-made graph are in the source tree of Graphquake. If Graphquake is an installed package, the folder is `regressions`
    in the working folder instead.

    Args:
        spec: the graph.
        chosen: the folder that the user named, if any. It is used as it is.
    """
    if chosen is not None:
        return chosen
    if not _is_ready_made(spec):
        return spec.path.parent / "regressions"
    return Path.cwd() / "regressions" if _is_installed() else _shipped()


def open_corpus(spec: GraphSpec, chosen: Path | None = None) -> Corpus:
    """Read the cases of a graph. For a ready-made graph, an installed Graphquake adds the cases that came with it.

    They are not added if the user chose a folder.

    Raises:
        InputError: if a case is damaged or of a newer schema.
    """
    brought = _is_ready_made(spec) and _is_installed() and chosen is None
    return Corpus(corpus_folder(spec, chosen), _shipped() if brought else None)


def _is_ready_made(spec: GraphSpec) -> bool:
    return spec.path in built_in_graphs().values()


def _shipped() -> Path:
    return Path(str(resources.files("graphquake.regressions")))


def _is_installed() -> bool:
    return "site-packages" in _shipped().parts


def check_writable(folder: Path, option: str) -> None:
    """Check that files can be written to a folder, which need not exist yet. Nothing is left there.

    Args:
        folder: the folder.
        option: the option that names it, for the error.

    Raises:
        InputError: if they can't.
    """
    folder = folder.absolute()
    there = next(one for one in (folder, *folder.parents) if one.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise InputError(
            f"{option}: cannot write to {folder}: {there}: {error.strerror}; name a folder that you can write to"
        ) from None


def runs_folder(root: Path, *names: str) -> Path:
    """The folder for the runs of a command. The runs of earlier commands stay there, except the oldest ones beyond `RUNS_KEPT`.

    Raises:
        InputError: if the results folder can't be written.
    """
    folder = results_folder(root, *names)
    numbered = sorted(int(one.name) for one in folder.glob("*") if one.name.isdecimal())
    for number in numbered[:-RUNS_KEPT]:
        shutil.rmtree(folder / f"{number:04}", ignore_errors=True)
    return folder


def save_case(corpus: Corpus, case: Case) -> Path:
    """Write a case into its folder, and return the path of its file.

    Raises:
        InputError: if it can't be written.
    """
    try:
        return corpus.save(case)
    except OSError as error:
        raise InputError(
            f"{error.filename or corpus.folder}: case {case.id} could not be saved: {error.strerror or error}"
        ) from None


def results_folder(root: Path, *names: str) -> Path:
    """The path of a folder in the results folder. Only the results folder itself is created here, with a .gitignore in it.

    Raises:
        InputError: if the results folder can't be written.
    """
    check_writable(root, "results folder")
    # Several processes may begin at once. The one that creates the folder also writes the .gitignore.
    with suppress(FileExistsError):
        root.mkdir(parents=True)
        (root / ".gitignore").write_text("*\n", encoding="ascii")
    return root.joinpath(*names)

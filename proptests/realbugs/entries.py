"""Read the entries of the benchmark: one TOML file for each real bug, in `entries/`.

An entry names the bug, the releases with and without it, the graph that shows it, the promise in the vendor's words, and the smallest plan
that a person found. The keys:

    what     = "…"            the bug in one sentence
    issue    = "https://…"    the public issue, or "open, found by us"
    promise  = "…"            what the vendor promises, quoted
    page     = "https://…"    the page of that quotation
    graph    = "nginx"        a ready-made graph, or a file in `graphs/`
    plan     = ["kill …"]     the smallest plan by hand
    broke    = 10             in how many runs of this plan the bug showed …
    of       = 10             … of how many
    on       = "2026-11-28"   the day of these runs
    when     = "…"            when the bug shows in such a run
    breaks   = ["… / …"]      a finding with one of these signatures is this bug, or a promise's name for all of its signatures …
    steps    = ["kill …"]     … if each of these texts begins a step of its plan. The key may be left out
    [before]                  the release with the bug. `[after]` is the release without it, and is missing while the bug is open
    release  = "name 1.0"
    packages = ["name==1.0"]  what uv installs. Empty for a program of the operating system
    [changes]                 changes of the graph file
    [after.changes]           more changes for one release, such as other options of its command
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from graphquake.harness.promises.signature import SEPARATOR, Signature
from graphquake.harness.spec.graph import GraphSpec, load_graph, read_graph
from graphquake.harness.spec.plan import Plan, parse_plan
from graphquake.harness.spec.table import Table
from graphquake.machines.cases.case import Case

from support.planted import merged

HERE: Final = Path(__file__).parent
FOLDER: Final = HERE / "entries"
GRAPHS: Final = HERE / "graphs"
OPEN: Final = "open, found by us"


@dataclass(frozen=True, slots=True)
class Release:
    """One release of the system that an entry is about.

    Attributes:
        name: the name and the version, for readers.
        packages: the requirements that uv installs. Empty for a program of the operating system.
        changes: changes of the graph file for this release alone.
    """

    name: str
    packages: tuple[str, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One real bug. The module describes the keys of its file."""

    name: str
    what: str
    issue: str
    promise: str
    page: str
    graph: str
    plan: Plan
    broke: int
    of: int
    on: str
    when: str
    breaks: tuple[str, ...]
    steps: tuple[str, ...]
    before: Release
    after: Release | None
    changes: Mapping[str, Any] = field(default_factory=dict)

    def releases(self) -> dict[str, Release]:
        """Return the release with the bug under `before`, and the release without it under `after`, if there is one."""
        return {"before": self.before} | ({"after": self.after} if self.after else {})

    def spec(self, release: str = "before", python: Path | None = None) -> GraphSpec:
        """Return the graph of the entry.

        Args:
            release: `before` or `after`.
            python: the Python that runs its processes. None means the Python of this process.
        """
        path = GRAPHS / f"{self.graph}.toml"
        right = load_graph(str(path) if path.exists() else self.graph)
        document = merged(right.document, self.changes)
        document = merged(document, self.releases()[release].changes)
        document["graph"] = self.name
        if python is not None:
            document["python"] = str(python)
        return read_graph(f"{self.name}.toml", document, right.path)

    def is_shown_by(self, signature: Signature) -> bool:
        """True if a violation with this signature may be the bug."""
        return any(
            signature == Signature.parse(text) if SEPARATOR in text else signature.promise == text
            for text in self.breaks
        )

    def is_case(self, case: Case) -> bool:
        """True if a finding is the bug: it has one of the signatures, and its plan has the steps that the bug needs."""
        shows = any(map(self.is_shown_by, (case.signature, *case.also)))
        lines = case.plan.lines()
        return shows and all(any(one.startswith(step) for one in lines) for step in self.steps)


def read_entries(folder: Path = FOLDER) -> dict[str, Entry]:
    """Return all entries by name.

    Raises:
        InputError: if a file lacks a key, or has a key or a value that is not right.
    """
    return {path.stem: read_entry(path) for path in sorted(folder.glob("*.toml"))}


def read_entry(path: Path) -> Entry:
    """Read one entry. Its name is that of the file.

    Raises:
        InputError: if the file lacks a key, or has a key or a value that is not right.
    """
    top = Table(path.name, tomllib.loads(path.read_text(encoding="utf-8")))
    broke, of = top.whole("broke", at_most=1000), top.whole("of", at_least=1, at_most=1000)
    if broke > of:
        raise top.error("broke", f"found {broke} of {of} runs, expected at most {of}")
    found = Entry(
        name=path.stem,
        what=top.text("what"),
        issue=top.text("issue"),
        promise=top.text("promise"),
        page=top.text("page"),
        graph=top.text("graph"),
        plan=parse_plan(path.name, top.texts("plan")),
        broke=broke,
        of=of,
        on=top.text("on"),
        when=top.text("when"),
        breaks=top.texts("breaks"),
        steps=top.texts("steps"),
        before=_read_release(top.table("before")),
        after=_read_release(top.table("after")) if "after" in top else None,
        changes=dict(top.table("changes").values),
    )
    if found.issue != OPEN and not found.issue.startswith("https://"):
        raise top.error("issue", f'found "{found.issue}", expected a URL or "{OPEN}"')
    if not found.breaks:
        raise top.error("breaks", "is empty, expected at least one signature or promise")
    top.done()
    return found


def _read_release(table: Table) -> Release:
    changes = table.table("changes").values
    release = Release(table.text("release"), table.texts("packages"), dict(changes))
    table.done()
    return release

"""Each end of a search: its exit status, and what the terminal, the two summaries and JUnit say about it.

Pytest runs here within this process, on simulated graphs. So a row of the table costs about a second.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from unittest import mock
from xml.etree import ElementTree as ET

import pytest

from graphquake.harness.history.request import Outcome
from graphquake.harness.promises.signature import Signature
from graphquake.harness.spec.graph import GraphSpec
from graphquake.machines.cases.case import Case, Status
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.plans import novelty
from graphquake.machines.runners.runner import PendingRun
from graphquake.machines.sessions import session
from graphquake.machines.sessions.live_state import read_state

from support.made import plan_of
from support.nested_pytest import enter, run_here
from support.sim_runner import Bug, SimRunner

pytestmark = pytest.mark.simulated

GRAPH = """
graph = "made"
serves = "frontend and decode"
lease_s = 10
faults = ["kill"]

[roles.frontend]
command = "frontend"
entry = "http://127.0.0.1:{port.http}"

[roles.decode]
command = "decode"
replicas = 2

[load]
model = "tiny"
rate_per_s = 20
"""
RAISES = """
[promises]
extra = ["mine:raises"]
"""
MINE = '''
def raises(history, up):
    """No request is slow."""
    return [1 / 0]
'''
KILL = plan_of("kill decode 0")
BREAKS = Bug(KILL, "wrong tokens")
EXCUSED = Bug(KILL, "HTTP 503", outcome=Outcome.ERROR, after_s=0.2)
CASE: Final = "abc123"


class Ends(SimRunner):
    """A simulated runner that raises an error instead of its third run."""

    error: BaseException

    def start(self, *arguments: Any, **named: Any) -> PendingRun:
        """Make one simulated run, or raise the error."""
        if len(self.runs) == 2:
            raise self.error
        return super().start(*arguments, **named)


def _full_disk(corpus: Corpus, _: Case) -> Path:
    raise OSError(28, "No space left on device", str(corpus.folder))


@dataclass(frozen=True)
class Row:
    """One end of a search.

    Attributes:
        exit_status: pytest's exit status.
        verdict: the verdict in every output.
        says: a text that the terminal and both summaries contain.
        runner: the arguments of the simulated runner.
        raises: raised instead of the third run.
        case: the status of a case that the search finds in its corpus, if any.
        more: the end of the graph file.
        options: more options of pytest.
        junit: the number of failures and errors in JUnit, and texts that the failure or the error contains. None if there is no test.
    """

    exit_status: int
    verdict: str
    says: str
    runner: dict[str, Any] = field(default_factory=lambda: {"bugs": [], "runs_max": 4})
    raises: BaseException | None = None
    case: Status | None = None
    full_disk: bool = False
    more: str = ""
    options: Sequence[str] = ()
    junit: tuple[int, int, tuple[str, ...]] | None = (0, 0, ())


FOUND = ("FINDING ", "kill decode", "graphquake replay ")
ROWS = {
    "clean": Row(0, "kept", "kept: nothing new"),
    "kept, with failures": Row(
        0, "kept", "excused in ", {"bugs": [EXCUSED], "runs_max": 12},
    ),
    "finding": Row(
        1, "broken", "broken: 1 new finding", {"bugs": [BREAKS]},
        junit=(1, 0, FOUND),
    ),
    "known only": Row(
        0, "kept", "known, broke again: REPRODUCED 1/1", {"bugs": [BREAKS], "runs_max": 4}, case="known",
    ),
    "fixed and back": Row(
        1, "broken", "it is back: REPRODUCED 1/1", {"bugs": [BREAKS], "runs_max": 1}, case="fixed",
        junit=(1, 0, (f"case {CASE}  one of two dead", "it is back", f"graphquake replay {CASE}")),
    ),
    "crashed search": Row(
        1, "proved nothing", "crashed: OSError: no memory", raises=ExceptionGroup("", [OSError("no memory")]),
        junit=(0, 1, ("no memory",)),
    ),
    "crashed promise": Row(
        2, "proved nothing", "ended by an error: made.toml: promises.extra: mine:raises raised ZeroDivisionError",
        more=RAISES, junit=None,
    ),
    "finding that cannot be saved": Row(
        1, "broken", "could not be saved: No space left on device, 1 new finding", {"bugs": [BREAKS]},
        full_disk=True, junit=(1, 0, ("FINDING ", "kill decode", 'graphquake run "kill decode')),
    ),
    "interrupted": Row(
        2, "proved nothing", "proved nothing: interrupted", raises=KeyboardInterrupt(), junit=None,
    ),
    "nothing proven": Row(
        1, "proved nothing", "proved nothing: 4 of 4 runs were invalid", {"bugs": [], "runs_max": 4, "invalid": 1.0},
        junit=(0, 1, ("proved nothing: 4 of 4 runs were invalid",)),
    ),
    "no room for a run": Row(
        1, "proved nothing", "proved nothing: no run fitted into the budget", {"bugs": [], "runs_max": 0},
        junit=(0, 1, ("proved nothing: no run fitted into the budget",)),
    ),
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project in the working folder. Every drawn plan is run."""
    enter(tmp_path, monkeypatch)
    (tmp_path / "mine.py").write_text(MINE)
    with mock.patch.object(novelty, "LOOK_MAX", 0):
        yield tmp_path


def searched(row: Row, project: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Search a simulated graph with pytest, and return the exit status and the text on the terminal."""
    (project / "made.toml").write_text(GRAPH + row.more)
    if row.case is not None:
        Corpus(project / "regressions").save(
            Case(
                CASE, "one of two dead", row.case, {"name": "made"},
                Signature("answers", "wrong tokens"), KILL, "wrong", why="URL", reach_s=9.0, any_replica=True,
            )
        )  # fmt: skip

    def runner(spec: GraphSpec, *_: object, **__: object) -> AbstractContextManager[SimRunner]:
        made = (Ends if row.raises is not None else SimRunner)(**row.runner, spec=spec)
        if isinstance(made, Ends) and row.raises is not None:
            made.error = row.raises
        return nullcontext(made)

    arguments = [
        "--chaos-graph=made.toml",
        "--hypothesis-seed=1",
        "--chaos-max-findings=1",
        "--junit-xml=junit.xml",
    ]
    save = _full_disk if row.full_disk else Corpus.save
    with mock.patch.object(session, "LiveRunner", runner), mock.patch.object(Corpus, "save", save):
        return run_here(capsys, *arguments, *row.options)


@pytest.mark.parametrize("name", ROWS)
def test_each_end_of_a_search_is_told_alike(
    name: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status, terminal, `summary.json`, `summary.md`, JUnit and the state for metrics agree."""
    row = ROWS[name]
    status, out = searched(row, project, capsys)
    assert status == row.exit_status, out
    assert row.says in out
    assert "Flaky" not in out
    results = project / ".graphquake"
    data = json.loads((results / "summary.json").read_text())
    (graph,) = data["graphs"]
    number = {"kept": 0, "broken": 1, "proved nothing": 3}[row.verdict]
    assert (data["verdict"], data["exit_status"]) == (row.verdict, number)
    assert (graph["verdict"], graph["exit_status"]) == (row.verdict, number)
    state = read_state(results / "made")
    assert state is not None
    assert {kind: number for kind, number in graph["runs"].items() if number} == state.live
    found = Counter(finding["status"] for finding in graph["findings"])
    assert found == state.statuses
    markdown = (results / "summary.md").read_text()
    assert f"\n{row.verdict}" in markdown
    for text in (markdown, (results / "made/index.html").read_text()):
        assert row.says in " ".join(text.split())
    suite = ET.parse(project / "junit.xml").getroot()[0]  # noqa: S314 - written by this test
    told = [one for one in suite.iter() if one.tag in ("failure", "error")]
    if row.junit is None:
        assert (int(suite.attrib["tests"]), told) == (0, [])
        return
    failures, errors, texts = row.junit
    assert (int(suite.attrib["failures"]), int(suite.attrib["errors"])) == (failures, errors)
    for text in texts:
        assert text in (told[0].text or "")
    properties = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert properties["verdict"] == row.verdict


def test_the_excused_failures_of_a_search_are_counted(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The runs, the failures and the line of each run are in the summary, in JUnit and on the page of the search."""
    searched(ROWS["kept, with failures"], project, capsys)
    (graph,) = json.loads((project / ".graphquake/summary.json").read_text())["graphs"]
    assert graph["excused"] == graph["excused_runs"] > 0
    page = (project / ".graphquake/made/index.html").read_text()
    assert page.count("</span>, 1 excused</td>") == graph["excused_runs"]
    assert f'name="excused" value="{graph["excused"]}"' in (project / "junit.xml").read_text()


def test_a_run_that_a_known_case_explains_says_so(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page of a search names the case that explains a broken run."""
    # The sweep leaves out the plan of the case itself. Its violation is seen again in pairs and drawn plans.
    row = ROWS["known only"]
    searched(replace(row, runner={**row.runner, "runs_max": 40}), project, capsys)
    page = (project / ".graphquake/made/index.html").read_text()
    rows = [line for line in page.split("<tr>") if ">search: " in line and "broken" in line]
    assert rows
    assert all(f"explained by case {CASE}" in line for line in rows)


@pytest.mark.parametrize("option", ["--chaos-results-dir", "--chaos-corpus", "--chaos-report-dir"])
def test_folders_are_tried_before_anything_starts(
    option: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that can't be written ends the session at once, with a line that names its option. No summary says anything else."""
    (project / "file").touch()
    row = Row(2, "", "", options=(f"{option}=file/inside",))
    status, out = searched(row, project, capsys)
    assert (status, f"{option}: cannot write to" in out) == (2, True), out
    assert "= graphquake =" not in out
    assert not list(project.rglob("summary.*"))

"""Tests of the benchmark of real bugs that start no graph: its entries can be read, and its tables are right."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.promises.signature import SEPARATOR, Signature
from graphquake.harness.spec.feasible import feasible
from graphquake.harness.spec.graph import built_in_graphs
from graphquake.machines.cases.case_file import read_case

from realbugs import environments
from realbugs.__main__ import keys_of
from realbugs.entries import FOLDER, GRAPHS, Release, read_entries, read_entry
from realbugs.environments import EnvironmentFailedError
from realbugs.rows import Mark, Row, table
from realbugs.ways import Always
from support.made import plan_of

pytestmark = pytest.mark.simulated
ENTRIES = read_entries()


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_fits_its_graph(name: str) -> None:
    """An entry names an existing graph and promises that it makes, its plan is possible, and a search may draw each of its faults."""
    entry = ENTRIES[name]
    assert entry.graph in built_in_graphs() or (GRAPHS / f"{entry.graph}.toml").exists()
    for release in entry.releases():
        spec = entry.spec(release, Path("/no/such/python"))
        assert (spec.name, spec.python) == (name, "/no/such/python")
        assert feasible(spec, entry.plan)
        assert all(map(spec.may_draw, entry.plan.steps))
        assert {one.partition(SEPARATOR)[0] for one in entry.breaks} <= set(spec.promises.made)
    assert all(any(line.startswith(step) for line in entry.plan.lines()) for step in entry.steps)
    assert entry.broke


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('issue   = "open, found by us"', 'issue = "somewhere"', 'issue: found "somewhere", expected a URL'),
        ("broke   = ", "broke = 9", "broke: found 9"),
        ("plan    = [", 'plan = ["kill nothing at all", ', "kill nothing at all"),
        ("what    = ", 'why = "x"\nwhat = ', "why: is not a known key"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_entry_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    """The error names the file, the key, and what was found."""
    text = (FOLDER / "nginx-ready-but-down.toml").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"mine\.toml") as caught:
        read_entry(path)
    assert said in str(caught.value)


def test_a_finding_is_a_bug_by_its_signature_and_its_steps() -> None:
    """A finding is the bug if its signature is one of the bug's, and its plan has the steps that the bug needs."""
    path = Path(__file__).parent / "regressions/dbe043.json"
    case = read_case(path.name, path.read_text(encoding="utf-8"))
    entry = ENTRIES["dynamo-bootstrap-retry"]
    assert entry.is_case(case)
    assert not entry.is_case(replace(case, plan=plan_of("kill prefill 0")))
    assert not ENTRIES["dynamo-frozen-worker"].is_case(case)
    # A stream that was cut is the same failure as a lost connection.
    panic = ENTRIES["sglang-router-panic"]
    assert panic.is_shown_by(Signature.parse("recovery / stream cut / path left"))
    assert not panic.is_shown_by(Signature.parse("recovery / HTTP 500 / path left"))


def test_each_search_is_made_once() -> None:
    """Each seed has a search on each release. Baselines see only the release with the bug, and the fixed scenarios only one seed."""
    name, entry = next(one for one in ENTRIES.items() if one[1].after is None)
    made = keys_of({name: entry}, ["search", "uniform", "scenarios"], ["before", "after"], [1, 2])
    assert [tuple(key) for key in made] == [
        (name, "search", "before", 1),
        (name, "uniform", "before", 1),
        (name, "scenarios", "before", 1),
        (name, "search", "before", 2),
        (name, "uniform", "before", 2),
    ]


def test_the_table_tells_found_from_confirmed_and_minimal() -> None:
    """A plan two steps longer than by hand was found, but is not minimal. An unshrunk case is confirmed only by three fresh runs."""
    hand = ["kill worker 0"]
    rows = [
        Row("a", "search", "before", "a 1", 1, found=True, plan=hand, by_hand=hand, status="open",
            broke=10, of=10, first=Mark(3, 20, 21), held=Mark(5, 40, 41), confirmed=Mark(20, 90, 91)),
        Row("a", "search", "before", "a 1", 2, found=True, plan=hand * 3, by_hand=hand, status="open"),
        Row("a", "search", "before", "a 1", 3, found=True, plan=hand, by_hand=hand, status="unshrunk",
            broke=2, of=2),
        Row("a", "search", "before", "a 1", 4, by_hand=hand),
        Row("a", "search", "after", "a 2", 1, others=["ends / stalled: stall worker 0"]),
    ]  # fmt: skip
    said = table(rows)
    assert "| a | a 1 | search | 3 of 4 | 3 runs, 20 live s, 21 s | 5 runs" in said
    assert "3 of 4 found the bug, 1 with a confirmed plan" in said
    assert "median 91 s to the confirmation" in said
    assert "| a | a 2 | search 1 | not found | ends / stalled: stall worker 0 |" in said
    assert [Row.of_json(asdict(row)) for row in rows] == rows


def test_an_environment_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A complete environment is used again. One whose build failed is built anew. A release without packages needs none."""
    calls: list[str] = []
    fails = True

    def uv(*arguments: str) -> None:
        calls.append(arguments[0])
        if arguments[0] == "venv":
            Path(arguments[-1]).mkdir(parents=True)
        elif fails:
            raise EnvironmentFailedError("no such package")

    monkeypatch.setattr(environments, "_uv", uv)
    assert environments.python_of(Release("apt", ()), tmp_path) is None
    release = Release("router 1", ("router==1",))
    with pytest.raises(EnvironmentFailedError, match="no such package"):
        environments.python_of(release, tmp_path)
    fails = False
    python = environments.python_of(release, tmp_path)
    assert environments.python_of(release, tmp_path) == python
    assert calls == ["venv", "pip"] * 2
    other = environments.python_of(Release("router 2", ("router==2",)), tmp_path)
    assert other != python


def test_uniform_drawing_runs_every_plan() -> None:
    """The baseline gives each drawn plan its turn, also one that shows nothing new."""
    choice = Always(next(iter(ENTRIES.values())).spec())
    plan = plan_of("kill worker 0")
    for _ in range(3):
        assert choice.has_turn(plan)
        choice.ran(plan)

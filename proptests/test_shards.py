"""A search that several processes divide: their seeds, their common cases and their one summary."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.rounds import Rounds
from graphquake.machines.findings.sightings import Sightings
from graphquake.machines.plans import novelty
from graphquake.machines.reports.summary import GraphSummary
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import RunResult
from graphquake.machines.sessions.folders import results_folder
from graphquake.machines.sessions.search import round_seed, search
from graphquake.machines.sessions.shards import merged, packed, unpacked

from support.made import plan_of
from support.sim_runner import Bug, SimRunner

pytestmark = pytest.mark.simulated

BUG = Bug(plan_of("kill decode 0"), "wrong tokens")
# A plan of one step is not shrunk before it counts.
TWO = Bug(plan_of("kill decode 0", "kill prefill 0"), "wrong tokens")


def searched(folder: Path, cases: Path, shard: int, bug: Bug = BUG) -> Rounds:
    """One shard, on a simulated graph with a bug."""
    corpus = Corpus(cases)
    rounds = Rounds(
        FindingPipeline(SimRunner([bug], runs_max=60), corpus, RunLog(), results_dir=folder)
    )
    search(rounds, 1, findings_max=1, shard=shard)
    return rounds


def test_each_shard_draws_from_seeds_of_its_own() -> None:
    """Each shard has different seeds. Those of the first shard are those of an undivided search."""
    seeds = {round_seed(7, "g", number, shard) for number in range(3) for shard in range(4)}
    assert len(seeds) == 12
    assert round_seed(7, "g", 0) == round_seed(7, "g", 0, 0)


def test_a_case_that_another_shard_saved_is_not_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A case that another shard saved after this one began explains what this one sees."""
    monkeypatch.setattr(novelty, "LOOK_MAX", 0)
    late = Rounds(
        FindingPipeline(
            SimRunner([BUG], runs_max=40), Corpus(tmp_path), RunLog(), results_dir=tmp_path
        )
    )
    first = searched(tmp_path, tmp_path, 0)
    assert len(first.pipeline.findings) == 1
    assert search(late, 1, findings_max=1, shard=1) == "budget"
    assert late.pipeline.findings == []
    assert late.log.explained.keys() == {first.pipeline.findings[0].case.id}


def test_a_case_saved_during_a_shrink_is_not_a_second_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If two shards shrink the same bug at once, the second one to end does not report a finding."""
    monkeypatch.setattr(novelty, "LOOK_MAX", 0)
    theirs = searched(tmp_path / "a", tmp_path / "theirs", 0, TWO).pipeline.findings[0].case
    ours = Rounds(
        FindingPipeline(
            SimRunner([TWO], runs_max=60), Corpus(tmp_path / "ours"), RunLog(), results_dir=tmp_path
        )
    )
    evidence = ours.pipeline._evidence

    def late(_: FindingPipeline, minimal: Plan, sightings: Sightings) -> list[RunResult]:
        Corpus(tmp_path / "ours").save(theirs)
        return evidence(minimal, sightings)

    monkeypatch.setattr(FindingPipeline, "_evidence", late)
    assert search(ours, 1, findings_max=1, shard=1) == "budget"
    assert ours.pipeline.findings == []
    assert [case.id for case in Corpus(tmp_path / "ours")] == [theirs.id]


def test_parts_add_up_to_one_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merged summary has the sums of the parts, the longest time and each finding once, also after pickling."""
    monkeypatch.setattr(novelty, "LOOK_MAX", 0)
    finding = searched(tmp_path, tmp_path / "cases", 0).pipeline.findings[0]
    one = GraphSummary("g", 7, 10.0, 60.0, live={"kept": 3, "broken": 1}, run_s=[1.0, 2.0])
    one.not_tried, one.findings, one.ended = ["stall", "kill"], [finding], "findings"
    two = GraphSummary("g", 7, 12.0, 60.0, live={"kept": 4}, run_s=[3.0], shard=1)
    two.not_tried, two.findings, two.ended = ["stall"], [finding], "budget"
    other = GraphSummary("h", 7, 1.0, shard=0)
    sent = unpacked(packed([two, other, one]))
    assert sent[0].live == two.live
    assert not sent[0].findings[0].shown.history.requests
    single, whole = merged(sent)
    assert (single.graph, single.parts) == ("h", (0,))
    assert (whole.live, whole.run_s, whole.spent_s) == (
        {"kept": 7, "broken": 1},
        [1.0, 2.0, 3.0],
        12.0,
    )
    assert (whole.not_tried, whole.ended, whole.parts) == (["stall"], "findings, budget", (0, 1))
    assert [f.case.id for f in whole.findings] == [finding.case.id]
    assert "g · seed 7 · 2 shards · 12s" in whole.text()


def test_parts_that_are_missing_and_searches_that_are_two() -> None:
    """Missing parts are left out, and two parts with one number belong to two searches."""
    last, first = GraphSummary("g", 7, shard=2), GraphSummary("g", 7, shard=0)
    other = GraphSummary("g", 8, shard=0)
    assert [one.parts for one in merged([last, first])] == [(0, 2)]
    assert [one.parts for one in merged([last])] == [(2,)]
    assert [(one.seed, one.parts) for one in merged([first, other])] == [(7, (0,)), (8, (0,))]


def test_processes_that_begin_at_once_share_a_folder(tmp_path: Path) -> None:
    """Processes that begin at once all get the results folder, and one of them makes it."""
    for number in range(50):
        root = tmp_path / str(number)
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(lambda _, root=root: results_folder(root, "g"), range(8)))
        assert found == {root / "g"}
        assert (root / ".gitignore").read_text() == "*\n"

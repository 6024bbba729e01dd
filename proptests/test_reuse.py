"""Shrinks with used graphs, simulated: the plans are as small, in less time, and traces of earlier runs do not mislead in the end."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.rounds import Rounds
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.sessions.search import search
from graphquake.machines.shrinking.result import Shrunk
from graphquake.machines.shrinking.shrink import shrink
from graphquake.machines.shrinking.trials import Trial, TrialLog

from bench.reused import saved
from support.made import plan_of
from support.sim_runner import Bug, SimRunner
from support.simulated import SHAPES, SPEC, Shape, Simulated, broken, failing

pytestmark = pytest.mark.simulated

SEEDS = range(2)
BROKEN, KEPT = Trial("broken"), Trial("kept")
PLAN = plan_of("kill decode 0", "wait 0.50 s", "kill prefill 0")


@dataclass(slots=True)
class Residue:
    """Used graphs that say something else than fresh ones, in a share of the runs.

    Attributes:
        kind: the wrong result of a used graph.
        asked: the runs on used graphs.
    """

    graph: Simulated
    kind: str
    share: float
    asked: list[Plan] = field(default_factory=list)
    _random: random.Random = field(default_factory=lambda: random.Random(1))

    def __call__(self, plan: Plan) -> Trial:
        """Make one run on a used graph."""
        self.asked.append(plan)
        trial = replace(self.graph(plan), used=True)
        if self._random.random() >= self.share:
            return trial
        return Trial("broken" if self.kind == "broken" else "kept", used=True)


def shrunk_with(shape: Shape, seed: int, kind: str, share: float) -> tuple[Shrunk, Residue]:
    """Shrink a plan where used graphs hold traces of earlier runs."""
    plan, graph = failing(shape, seed), Simulated(shape, seed)
    residue = Residue(graph, kind, share)
    return shrink(SPEC, plan, broken(shape, plan), graph, reuse=residue), residue


@pytest.mark.parametrize("kind", ["broken", "kept"])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_residues_of_used_graphs_never_make_a_plan_that_does_not_break(
    kind: str, share: float
) -> None:
    """The minimal plan breaks in each of its fresh runs, at least three, also if used graphs always break, or always hide the bug.

    If they always hide it, the minimal plan is still step-minimal, because fresh runs confirm each rejection.
    """
    for shape in SHAPES:
        for seed in SEEDS:
            one, residue = shrunk_with(shape, seed, kind, share)
            assert residue.asked
            assert one.confirmed
            assert one.broke == one.runs >= 3
            assert shape.at_s(one.plan) is not None
            if (kind, share) == ("kept", 1.0):
                assert shape.is_step_minimal(one.plan), one.plan.one_line()


def test_used_graphs_save_time_and_lose_nothing() -> None:
    """At rate 1, with a start of two thirds of a run, used graphs save a third of the time and every plan is minimal."""
    found = saved(1.0, 4)
    assert found.shrinking <= 0.65
    assert found.minimal == found.minimal_fresh == 1.0


def test_kept_on_used_graphs_rejects_nothing_until_a_fresh_one_agrees() -> None:
    """Of the kept runs that reject a plan, the last has a fresh graph, unless an earlier one had."""
    asked: list[str] = []

    def run(_plan: Plan) -> Trial:
        asked.append("fresh")
        return KEPT

    def reuse(_plan: Plan) -> Trial:
        asked.append("used")
        return replace(KEPT, used=True)

    log = TrialLog(run, reuse=reuse)
    assert not log.breaks(PLAN, 3, "", 0.5)
    assert asked == ["used", "used", "fresh"]
    assert not log.breaks(PLAN, 5, "", 0.5)
    assert asked == ["used", "used", "fresh", "used", "used"]
    assert (log.count(PLAN).kept, log.count(PLAN).used_kept) == (1, 4)


def test_an_invalid_run_on_a_used_graph_is_repeated_on_a_fresh_one() -> None:
    """An invalid run on a used graph is repeated on a fresh one."""
    log = TrialLog(lambda _: BROKEN, reuse=lambda _: Trial("invalid", used=True))
    assert log.once_more(PLAN, "", 0.5, fresh=False) == BROKEN
    assert [tried.trial.used for tried in log.all] == [True, False]
    assert log.count(PLAN).broke == 1


def test_a_search_uses_them_where_the_lab_does(tmp_path: Path) -> None:
    """A search with used graphs finds the same case, confirmed by ten runs on fresh graphs."""
    searches = []
    for reuses in (False, True):
        runner = SimRunner(
            [Bug(plan_of("kill decode 0", "kill prefill 0"), "wrong")], reuses=reuses
        )
        folder = tmp_path / str(reuses)
        searches.append(
            Rounds(FindingPipeline(runner, Corpus(folder), RunLog(), results_dir=folder))
        )
        search(searches[-1], 1, findings_max=1)
    fresh, used = (rounds.pipeline.findings[0].case for rounds in searches)
    assert used.plan == fresh.plan
    assert (used.observed[0].broke, used.observed[0].runs) == (10, 10)

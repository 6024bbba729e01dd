"""Which drawn plans are run: those that show what no run has shown yet."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hypothesis import seed
from hypothesis.stateful import run_state_machine_as_test

from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.rounds import Rounds
from graphquake.machines.plans.machine import machine_for
from graphquake.machines.plans.novelty import LOOK_MAX, Novelty, sights
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.sessions.search import SETTINGS, round_seed, search

from support.made import plan_of, spec_of
from support.sim_runner import SimRunner

SPEC = spec_of(lease_s=1.0)


class _Enough(BaseException):
    pass


def drawn(count: int) -> list[Plan]:
    """The first so many plans that do anything, each once, in the order in which they are drawn."""
    plans: dict[Plan, None] = {}

    def note(plan: Plan) -> None:
        if plan.disturbs:
            plans[plan] = None
        if len(plans) >= count:
            raise _Enough

    machine = machine_for(SPEC, note)
    seed(round_seed(1, SPEC.name, 0))(machine)
    with contextlib.suppress(_Enough):
        run_state_machine_as_test(machine, settings=SETTINGS)
    return list(plans)


def test_numbers_are_no_sights() -> None:
    """How long a wait is matters only where it outlasts what hides an outage, or tells two blows from one."""
    one = plan_of("wait 0.10 s", "kill decode 1", "wait 0.35 s", "burst 5 over 0.50 s")
    two = plan_of("kill decode 1", "wait 0.60 s", "burst 10 over 1.00 s")
    assert sights(SPEC, one) == sights(SPEC, two)
    long = plan_of("kill decode 1", "wait 6.50 s", "burst 10 over 1.00 s")
    assert sights(SPEC, long) - sights(SPEC, two) == {("out for long", "decode")}
    at_once = plan_of("kill decode 1", "burst 10 over 1.00 s")
    assert sights(SPEC, at_once) != sights(SPEC, two)


def test_what_a_fault_falls_into_is_a_sight() -> None:
    """The same kill, while another role is out, and right after its victim came back."""
    alone = sights(SPEC, plan_of("kill decode 0"))
    beside = sights(SPEC, plan_of("kill decode 1", "kill decode 0"))
    young = sights(SPEC, plan_of("kill decode 0", "respawn decode 0", "kill decode 0"))
    assert ("kill decode tree", "while out", "decode") in beside - alone
    assert ("kill decode tree", "after the return of", "itself", "soon") in young - alone
    assert {("dies", "decode", "1"), ("dies", "decode", "2")} <= young


def test_what_nobody_can_see_is_another_sight() -> None:
    """A kill while the only prefill worker is out: no request shows what it did, so it still has to be shown."""
    seen = sights(SPEC, plan_of("kill decode 0"))
    hidden = sights(SPEC, plan_of("kill prefill 0", "kill decode 0"))
    assert ("kill decode tree",) in seen - hidden
    assert ("kill decode tree", "while out", "prefill", "without a path") in hidden


def test_live_runs_go_to_what_was_not_seen_yet(tmp_path: Path) -> None:
    """Twenty runs show far more than the first twenty plans that are drawn."""
    runner = SimRunner([], runs_max=20, spec=SPEC)
    rounds = Rounds(
        FindingPipeline(
            runner, Corpus(tmp_path / "cases"), RunLog(), results_dir=tmp_path / "results"
        )
    )
    search(rounds, 1, findings_max=1)
    first = set[tuple[str, ...]]().union(*(sights(SPEC, plan) for plan in drawn(20)))
    chosen = set[tuple[str, ...]]().union(*(sights(SPEC, plan) for plan in runner.runs))
    assert len(chosen) > 1.5 * len(first)
    assert rounds.log.drawn["shows less than others"] > 20


def test_nothing_is_ruled_out() -> None:
    """A plan that shows nothing new has its turn if nothing better comes."""
    novelty, plan = Novelty(SPEC), plan_of("kill decode 0")
    novelty.ran(plan)
    novelty.has_turn(plan_of("kill prefill 0", "kill decode 0", "kill frontend 0"))
    assert any(novelty.has_turn(plan) for _ in range(LOOK_MAX))

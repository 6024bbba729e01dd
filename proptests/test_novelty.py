"""Tests of the choice of drawn plans: those with new features are run."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import seed
from hypothesis.stateful import run_state_machine_as_test

from graphquake.harness.spec.plan import Plan
from graphquake.machines.plans.drawn_rules import machine_for
from graphquake.machines.plans.novelty import LOOK_MAX, Novelty, features
from graphquake.machines.sessions.price import NAME, read_price, write_price
from graphquake.machines.sessions.search import SETTINGS, round_seed

from support.made import plan_of, spec_of
from support.searched import searched
from support.sim_runner import SimRunner

pytestmark = pytest.mark.simulated

SPEC = spec_of(lease_s=1.0)


class _Enough(BaseException):
    pass


def drawn(count: int) -> list[Plan]:
    """Return the first `count` different plans that disturb the graph, in the order in which they are drawn."""
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


def test_numbers_are_not_features() -> None:
    """The length of a wait is a feature only if an outage outlasts its hidden time, or if it separates two acts."""
    one = plan_of("wait 0.10 s", "kill decode 1", "wait 0.35 s", "burst 5 over 0.50 s")
    two = plan_of("kill decode 1", "wait 0.60 s", "burst 10 over 1.00 s")
    assert features(SPEC, one) == features(SPEC, two)
    long = plan_of("kill decode 1", "wait 6.50 s", "burst 10 over 1.00 s")
    assert features(SPEC, long) - features(SPEC, two) == {("out for long", "decode")}
    at_once = plan_of("kill decode 1", "burst 10 over 1.00 s")
    assert features(SPEC, at_once) != features(SPEC, two)


def test_the_state_in_which_a_fault_happens_is_a_feature() -> None:
    """A kill while another replica is out, and a kill soon after its victim came back, have features that a lone kill lacks."""
    alone = features(SPEC, plan_of("kill decode 0"))
    beside = features(SPEC, plan_of("kill decode 1", "kill decode 0"))
    young = features(SPEC, plan_of("kill decode 0", "respawn decode 0", "kill decode 0"))
    assert ("kill decode tree", "while out", "decode") in beside - alone
    assert ("kill decode tree", "after the return of", "itself", "soon") in young - alone
    assert {("dies", "decode", "1"), ("dies", "decode", "2")} <= young


def test_an_act_without_a_path_has_another_feature() -> None:
    """A kill while the only prefill worker is out has another feature, because no request shows its effect."""
    seen = features(SPEC, plan_of("kill decode 0"))
    hidden = features(SPEC, plan_of("kill prefill 0", "kill decode 0"))
    assert ("kill decode tree",) in seen - hidden
    assert ("kill decode tree", "while out", "prefill", "without a path") in hidden


def test_chosen_plans_show_new_features() -> None:
    """Eight chosen plans show far more features than the first eight plans that are drawn."""
    novelty, chosen, plans = Novelty(SPEC), list[Plan](), drawn(8 * (LOOK_MAX + 1))
    for plan in plans:
        if len(chosen) < 8 and novelty.has_turn(plan):
            novelty.ran(plan)
            chosen.append(plan)
    first, best = (
        set[tuple[str, ...]]().union(*(features(SPEC, plan) for plan in some))
        for some in (plans[:8], chosen)
    )
    assert len(chosen) == 8
    assert len(best) > 1.5 * len(first)


def test_the_best_of_some_plans_shows_most_for_its_time() -> None:
    """A plan without new features, or with long waits, is not the best. A run's price decides how much a wait matters."""
    novelty = Novelty(SPEC)
    novelty.ran(plan_of("kill decode 0"))
    known, new = plan_of("kill decode 0"), plan_of("stall decode 1 for 0.60 s")
    slow = plan_of("stall decode 1 for 0.60 s", "wait 20.00 s", "terminate decode 0")
    assert novelty.best([known, slow, new]) == new
    novelty.price(200.0)
    assert novelty.best([known, slow, new]) == slow
    assert novelty.best([]) is None


def test_no_plan_is_ruled_out() -> None:
    """A plan without new features is run if no better plan is drawn."""
    novelty, plan = Novelty(SPEC), plan_of("kill decode 0")
    novelty.ran(plan)
    novelty.has_turn(plan_of("kill prefill 0", "kill decode 0", "kill frontend 0"))
    assert any(novelty.has_turn(plan) for _ in range(LOOK_MAX))


def test_the_price_of_a_run_is_kept_for_the_next_search(tmp_path: Path) -> None:
    """The next search reads what the last one wrote. A search without a price leaves the older one, and a damaged file is no price."""
    assert read_price(tmp_path) is None
    write_price(tmp_path, 11.4)
    write_price(tmp_path, None)
    assert read_price(tmp_path) == 11.4
    for damaged in ("", "[]", "{}", '{"run_s": "soon"}', '{"run_s": -1}', '{"run_s": NaN}'):
        (tmp_path / NAME).write_text(damaged)
        assert read_price(tmp_path) is None
    write_price(tmp_path / "not there", 11.4)


def test_a_search_learns_the_price_of_a_run(tmp_path: Path) -> None:
    """The price is the median over the kept runs. Without a kept run there is none."""
    rounds, _ = searched(SimRunner([], runs_max=3), tmp_path)
    assert rounds.run_s is not None
    assert rounds.run_s >= 0
    rounds, _ = searched(SimRunner([], runs_max=0), tmp_path)
    assert rounds.run_s is None

"""Tests of the model: the state of a graph after some steps, and the plans that are feasible."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquake.harness.errors import InputError
from graphquake.harness.spec.feasible import check_plan, feasible, mend
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import (
    Burst,
    Kill,
    Plan,
    Respawn,
    Stall,
    Step,
    Terminate,
    Wait,
    WaitReady,
    parse_plan,
)
from graphquake.harness.spec.steps.model import GraphModel

from support.simulated import SPEC, drawn, spec_with

pytestmark = pytest.mark.simulated

WORKERS = spec_with(frontend=1, worker=2)
aims = st.sampled_from(SPEC.replicas())
any_steps: st.SearchStrategy[Step] = st.one_of(
    aims.map(lambda who: Kill(who.role, who.index)),
    aims.map(lambda who: Terminate(who.role, who.index)),
    aims.map(lambda who: Stall(who.role, who.index, 1.0)),
    aims.map(lambda who: Respawn(who.role, who.index)),
    st.sampled_from([Burst(5), Wait(0.5), WaitReady()]),
)
any_plans = st.lists(any_steps, max_size=15).map(lambda steps: Plan(tuple(steps)))


def plan_of(*lines: str) -> Plan:
    """Read a plan from its text."""
    return parse_plan("test", lines)


def after(spec: GraphSpec, *lines: str) -> GraphModel:
    """Return the model of a graph after a feasible plan."""
    model = GraphModel(spec)
    for step in plan_of(*lines).steps:
        assert step.possible(model) is None, step
        model = step.after(model)
    return model


def can(model: GraphModel, line: str) -> bool:
    """True if a step is possible."""
    return plan_of(line).steps[0].possible(model) is None


@pytest.mark.parametrize("lost", ["kill decode 0", "kill decode 0 process", "terminate decode 0"])
def test_a_lost_replica_can_only_be_brought_back(lost: str) -> None:
    """A replica that is dead, or got SIGTERM, can't be a victim again. It can be respawned once."""
    model = after(SPEC, lost)
    assert not can(model, "kill decode 0")
    assert not can(model, "terminate decode 0")
    assert can(model, "respawn decode 0")
    assert can(model, "kill decode 1")
    back = after(SPEC, lost, "respawn decode 0")
    assert not can(back, "respawn decode 0")
    assert can(back, "kill decode 0")


def test_a_child_takes_its_replica_along_only_if_the_file_says_so() -> None:
    """A kill of a child ends its replica if the child is in `dies_with`, as the engine is and the helper is not."""
    assert can(after(WORKERS, "kill worker 0 engine"), "respawn worker 0")
    assert can(after(WORKERS, "kill worker 0 helper"), "kill worker 0")
    assert not can(after(WORKERS, "kill worker 0"), "kill worker 0 engine")


def test_a_path_needs_one_of_each_role() -> None:
    """A path ends with the last decode replica, or with the only entry."""
    assert after(SPEC, "kill decode 0", "terminate decode 2").serves()
    assert not after(SPEC, "kill decode 0", "kill decode 1", "terminate decode 2").serves()
    assert not after(SPEC, "kill frontend 0").serves()
    assert after(SPEC, "kill frontend 0", "respawn frontend 0", "wait until ready").serves()


def test_a_restarted_replica_needs_no_respawn() -> None:
    """With `restart = "always"`, a killed replica comes back without a step, and a respawn is not possible."""
    spec = spec_with(restart="always")
    model = after(spec, "kill decode 0")
    assert not can(model, "respawn decode 0")
    assert not can(model, "kill decode 0")
    assert can(after(spec, "kill decode 0", "wait until ready"), "kill decode 0")
    assert can(after(spec, "kill decode 0", "wait 2 s"), "kill decode 0")


def test_a_slow_restart_takes_its_delay() -> None:
    """A replica can't be killed again before its restart delay is over."""
    spec = replace(spec_with(restart="always"), restart_delay_s=5.0)
    assert not can(after(spec, "kill decode 0", "wait 2 s"), "kill decode 0")
    assert can(after(spec, "kill decode 0", "wait 6 s"), "kill decode 0")


@given(any_plans)
def test_a_mended_plan_is_feasible_and_loses_no_more_than_it_must(plan: Plan) -> None:
    """Mending makes a plan feasible. It does not change a feasible plan."""
    mended = mend(SPEC, plan)
    assert feasible(SPEC, mended)
    assert mend(SPEC, mended) == mended
    assert (mended == plan) == feasible(SPEC, plan)


def test_mending_removes_steps_that_became_impossible() -> None:
    """Mending removes a respawn without its kill, and a second kill of the same replica. It keeps the steps that are possible then."""
    broken = plan_of(
        "respawn decode 0", "kill decode 0", "kill decode 0", "burst 5 over 0.00 s", "kill decode 1"
    )
    assert mend(SPEC, broken) == plan_of("kill decode 0", "burst 5 over 0.00 s", "kill decode 1")


@given(st.integers(0, 300))
def test_drawn_plans_are_feasible(seed: int) -> None:
    """Every drawn plan is feasible, and is accepted as a user's plan."""
    plan = drawn(seed)
    assert feasible(SPEC, plan)
    check_plan(SPEC, plan, "test")


@given(any_plans)
def test_a_model_changes_only_by_its_steps(plan: Plan) -> None:
    """Neither a question nor a later step changes an earlier model."""
    model = GraphModel(SPEC)
    seen: list[tuple[GraphModel, Step, str | None]] = []
    for step in mend(SPEC, plan).steps:
        seen.append((model, step, step.possible(model)))
        model = step.after(model)
    assert all(step.possible(before) == said for before, step, said in seen)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ["wait 1 s", "wait 1 s", "kill prefill 2"],
            'step 3, "kill prefill 2": my-disagg has prefill 0 and prefill 1',
        ),
        (["kill decod 0"], 'step 1, "kill decod 0": .*did you mean "decode"'),
        (["kill worker 0 engin"], 'step 1, "kill worker 0 engin": .*did you mean "engine"'),
        (["respawn prefill 0"], 'step 1, "respawn prefill 0": prefill 0 '),
        (["kill prefill 0", "kill prefill 0"], 'step 2, "kill prefill 0": prefill 0 '),
    ],
)
def test_an_impossible_plan_of_a_user_is_turned_down_with_its_step(
    lines: list[str], said: str
) -> None:
    """The error for an impossible plan has the number of the step (from 1), its text, the reason and a correct value."""
    spec = spec_with(frontend=1, prefill=2, decode=3, worker=1)
    with pytest.raises(InputError, match=said):
        check_plan(spec, plan_of(*lines), "plan.txt")


def test_a_stalled_replica_serves_again_after_the_stall() -> None:
    """A stalled replica serves again after waits of the stall's length. Until then, only a kill of its whole tree is possible."""
    stalled = after(SPEC, "stall frontend 0 for 1.00 s", "wait 0.60 s")
    assert not stalled.serves()
    assert can(stalled, "kill frontend 0")
    for line in ("kill frontend 0 process", "terminate frontend 0", "stall frontend 0 for 1.00 s"):
        assert not can(stalled, line), line
    assert not can(stalled, "respawn frontend 0")
    for step in ("wait 0.40 s", "wait until ready"):
        (done,) = plan_of(step).steps
        assert done.after(stalled).serves()
        assert can(done.after(stalled), "terminate frontend 0")
    back = after(SPEC, "stall decode 0 for 9.00 s", "kill decode 0", "respawn decode 0")
    assert can(back, "stall decode 0 for 1.00 s")

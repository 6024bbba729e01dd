"""Gather evidence for a minimal plan: fresh runs of it, runs without its faults, and runs with other replicas."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from graphquake.harness.spec.feasible import feasible
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.harness.spec.replica import Replica
from graphquake.machines.shrinking.probdd import prior
from graphquake.machines.shrinking.state import (
    EVEN,
    LIKELY,
    MINIMAL_SURE,
    PASSES_MAX,
    REPRODUCE_MAX,
    UNLIKELY,
    ShrinkState,
)
from graphquake.machines.shrinking.stats import chance_of_fewer, on_the_way, passes_to_reject
from graphquake.machines.shrinking.trials import Count

# A smaller plan whose rate is below this share of the rate before shows something else.
ERODED: Final = 0.5
# The probability of an accident (Fisher's exact test) below which a lower rate is looked into, and below which it is not an accident.
DOUBT: Final = 0.12
BY_ACCIDENT: Final = 0.03
# With fewer runs than this, that test cannot cast a doubt. Then a rate below the share above is looked into at once.
FEW_RUNS: Final = 3
# This many runs of each plan distinguish a rate from a quarter of it, at rates from .4 on. At lower rates they do not.
COMPARE_RUNS: Final = 14
COMPARABLE: Final = 0.40


def stands_on_fresh_graphs(state: ShrinkState) -> bool:
    """Check that the minimal plan breaks on a fresh graph, and not only on used ones.

    If it does not, something that an earlier run left in a graph broke the promise. The shrink steps back to the last plan that did break
    on a fresh graph, and uses only fresh graphs from then on.

    Returns:
        False if it stepped back.
    """
    stands = True
    while not state.log.count(state.minimal_plan).broke:
        while _may_stand(state):
            again = state.log.once_more(state.minimal_plan, "on a fresh graph", LIKELY)
            if again.kind == "broken":
                return stands
        state.step_back()
        state.log.reuse = None
        stands = False
    return stands


def _may_stand(state: ShrinkState) -> bool:
    enough = min(PASSES_MAX, max(REPRODUCE_MAX, passes_to_reject(state.rate(), MINIMAL_SURE)))
    plan = state.minimal_plan
    return state.log.count(plan).kept < enough and plan not in state.log.aside


def confirm(state: ShrinkState) -> None:
    """Make fresh runs of the minimal plan. While it breaks far less often than the first plan, step back to the plan before it."""
    while state.log.count(state.minimal_plan).runs < state.confirmations:
        if state.minimal_plan in state.log.aside:
            return
        state.log.once_more(state.minimal_plan, "confirm", state.rate())
        while len(state.held) > 1 and _is_eroded(state):
            state.step_back()


def _is_eroded(state: ShrinkState) -> bool:
    """True if the minimal plan breaks far less often than the plan that was found.

    The plans on the way were run once or twice each, which flatters them. So they only cast a doubt. Then the minimal plan and the
    first accepted plan are run more often, and these counts decide.
    """
    own = state.log.count(state.minimal_plan)
    before, first = state.pooled(state.held[:-1]), state.held[0]
    enough = own.runs >= state.confirmations or (own.broke == 1 and own.runs > REPRODUCE_MAX)
    if not enough or on_the_way(before.broke, before.runs) < COMPARABLE:
        return False
    if not _breaks_less_than(state, before, DOUBT if before.runs >= FEW_RUNS else 1.0):
        return False
    for plan in (state.minimal_plan, first):
        while state.log.count(plan).runs < COMPARE_RUNS and plan not in state.log.aside:
            state.log.once_more(plan, "compare with the plan that reproduced it", state.rate())
    return _breaks_less_than(state, state.log.count(first), BY_ACCIDENT)


def _breaks_less_than(state: ShrinkState, before: Count, accident: float) -> bool:
    """True if the minimal plan's rate is below half of another rate, and an accident of that size is less probable than `accident`."""
    broke, runs = state.own()
    if broke * before.runs >= ERODED * before.broke * runs:
        return False
    return chance_of_fewer(broke, runs, before.broke, before.runs) < accident


def control_plan(state: ShrinkState) -> Plan:
    """The minimal plan without its faults."""
    return prior(state.spec, state.minimal_plan.without_faults()).with_waits_joined().plan


def run_controls(state: ShrinkState) -> None:
    """Run the minimal plan without its faults. If it breaks, load alone breaks the promise."""
    control = control_plan(state)
    while (done := state.log.count(control)).ever_broke + done.ever_kept < state.controls:
        if control in state.log.aside:
            return
        reason = "control, without the faults"
        state.log.once_more(control, reason, UNLIKELY, fresh=not done.kept)


def try_other_replicas(state: ShrinkState) -> bool | None:
    """Run the minimal plan with other replicas of the same roles.

    Returns:
        True if it breaks, too. None if there are no other replicas, or if all runs were invalid.
    """
    other = _other_replicas(state.spec, state.minimal_plan)
    if other == state.minimal_plan or not feasible(state.spec, other):
        return None
    broken = state.log.breaks(other, state.passes_to_be_sure(), "with other replicas", EVEN)
    return None if other in state.log.aside else broken


def _other_replicas(spec: GraphSpec, plan: Plan) -> Plan:
    """The plan with each replica exchanged for the next one of its role."""

    def other(one: Replica) -> Replica:
        return Replica(one.role, (one.index + 1) % spec.role(one.role).replicas)

    return replace(plan, steps=tuple(step.moved(other) for step in plan.steps))

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
    rate_of,
)
from graphquake.machines.shrinking.stats import chance_of_fewer, passes_to_reject
from graphquake.machines.shrinking.trials import Count

# If a smaller plan breaks less often than this share of the earlier plans' failure rate, it shows something else.
ERODED: Final = 0.5
# The probability that a difference between two failure rates arose by chance (Fisher's exact test).
# Below `DOUBT`, more runs are made. If it is then below `BY_ACCIDENT`, the difference counts as real.
DOUBT: Final = 0.12
BY_ACCIDENT: Final = 0.03
# Below this, the difference counts as real before all runs of a comparison were made. It is looked at after each pair of runs.
SURELY_REAL: Final = 0.01
# If the earlier plans had fewer runs than this, the test cannot reach `DOUBT`. Then more runs are made without it.
FEW_RUNS: Final = 3
# With this many runs of each of two plans, the test tells a failure rate from a quarter of that rate.
# This holds for rates from `COMPARABLE` on. Lower rates are not compared.
COMPARE_RUNS: Final = 14
COMPARABLE: Final = 0.50
# From this many runs of each on, the comparison ends if chance explains the difference with more than `LET_OFF`.
COMPARE_MIN: Final = 6
LET_OFF: Final = 0.3


def stands_on_fresh_graphs(state: ShrinkState) -> bool:
    """Check that the minimal plan breaks on a fresh graph, and not only on used ones.

    If it does not, something that an earlier run left in a graph broke the promise. The shrink then steps back to the last accepted plan
    that breaks on a fresh graph, and uses only fresh graphs from then on.

    Returns:
        False if the shrink stepped back to an earlier plan, true otherwise.
    """
    stands = True
    while state.held and not state.log.count(state.minimal_plan).fresh_broke:
        while _may_stand(state):
            again = state.log.once_more(state.minimal_plan, "on a fresh graph", LIKELY)
            if again.kind == "broken":
                return stands
        state.step_back_to_proof()
        state.log.reuse = None
        state.log.trusts_later = False
        stands = False
    return stands


def _may_stand(state: ShrinkState) -> bool:
    enough = min(PASSES_MAX, max(REPRODUCE_MAX, passes_to_reject(state.rate(), MINIMAL_SURE)))
    plan = state.minimal_plan
    count = state.log.count(plan)
    return count.fresh_kept < enough and plan not in state.log.aside


def confirm(state: ShrinkState) -> None:
    """Run the minimal plan on fresh graphs until these runs are enough (see `_are_enough`).

    While it breaks far less often than the first accepted plan, step back to the plan that was accepted before it.
    """
    while not _are_enough(state):
        if state.minimal_plan in state.log.aside:
            return
        state.log.once_more(state.minimal_plan, "confirm", state.rate())
        while len(state.held) > 1 and _is_eroded(state):
            state.step_back()


def _are_enough(state: ShrinkState) -> bool:
    """True if the minimal plan has had enough fresh runs: the first `enough` confirming runs all broke, or it has had `confirmations` runs.

    If the failure rate is known to be low, kept runs are expected, and `enough` broken runs are enough beside them, too. Otherwise a kept
    run means that the minimal plan may break less often than the plans before it. Then only more runs can tell.
    """
    broke, runs = state.own()
    count = state.log.count(state.minimal_plan)
    if not count.broke:
        return count.kept >= 2 * PASSES_MAX
    if count.runs >= state.confirmations:
        return True
    return broke >= state.enough and (broke == runs or state.log.later_broke)


def _is_eroded(state: ShrinkState) -> bool:
    """True if the minimal plan breaks far less often than the first accepted plan.

    First, the minimal plan is compared with all earlier accepted plans. Each of these was run only once or twice, and accepted because it
    broke. So their failure rate looks too high, and a difference proves little. If there is one, the minimal plan and the first accepted
    plan are run more often, and the counts of these two decide.
    """
    own = state.log.count(state.minimal_plan)
    earlier, first = state.pooled(state.held[:-1]), state.held[0]
    enough = _are_enough(state) or (own.broke == 1 and own.runs > REPRODUCE_MAX)
    if not enough or rate_of(earlier) < COMPARABLE:
        return False
    before = Count(earlier.ever_broke, earlier.ever_kept)
    if not _breaks_less_than(state, before, DOUBT if before.runs >= FEW_RUNS else 1.0):
        return False
    for runs in range(1, COMPARE_RUNS + 1):
        for plan in (state.minimal_plan, first):
            if state.log.count(plan).runs < runs and plan not in state.log.aside:
                reason = "compare with the plan that reproduced it"
                state.log.once_more(plan, reason, state.rate())
        if runs < COMPARE_MIN:
            continue
        if _breaks_less_than(state, state.log.count(first), SURELY_REAL):
            return True
        if _chance(state, state.log.count(first)) > LET_OFF:
            return False
    return _breaks_less_than(state, state.log.count(first), BY_ACCIDENT)


def _breaks_less_than(state: ShrinkState, before: Count, accident: float) -> bool:
    """True if the minimal plan fails less than half as often as `before`, and chance is an unlikely reason for it.

    Args:
        state: the shrink, with the minimal plan and its counts.
        before: the counts of the plans with which the minimal plan is compared.
        accident: a difference that large must arise by chance with a probability below this.
    """
    broke, runs = state.own()
    if broke * before.runs >= ERODED * before.broke * runs:
        return False
    return _chance(state, before) < accident


def _chance(state: ShrinkState, before: Count) -> float:
    """The probability that the minimal plan breaks so rarely by chance, if it breaks as often as `before`."""
    broke, runs = state.own()
    return chance_of_fewer(broke, runs, before.broke, before.runs)


def control_plan(state: ShrinkState) -> Plan:
    """The minimal plan without its faults."""
    return prior(state.spec, state.minimal_plan.without_faults()).with_waits_joined().plan


def run_controls(state: ShrinkState) -> None:
    """Run the minimal plan without its faults, `controls` times. If such a run breaks the promise, load alone is enough to break it."""
    control = control_plan(state)
    while (done := state.log.count(control)).ever_broke + done.ever_kept < state.controls:
        if control in state.log.aside:
            return
        reason = "control, without the faults"
        trials = min(state.times(), state.controls - done.ever_broke - done.ever_kept)
        state.log.once_more(control, reason, UNLIKELY, fresh=not done.fresh_kept, trials=trials)


def try_other_replicas(state: ShrinkState) -> bool | None:
    """Run the minimal plan with other replicas of the same roles.

    Returns:
        True if the plan with other replicas breaks the promise, too, and false if it does not. None if the roles have no other replicas, if
        that plan is not possible, or if all of its runs were invalid.
    """
    other = _other_replicas(state.spec, state.minimal_plan)
    if other == state.minimal_plan or not feasible(state.spec, other):
        return None
    broken = state.log.breaks(other, state.passes_to_be_sure(), "with other replicas", EVEN)
    return None if other in state.log.aside else broken


def _other_replicas(spec: GraphSpec, plan: Plan) -> Plan:
    """The plan with each replica exchanged for the next replica of its role."""

    def other(one: Replica) -> Replica:
        return Replica(one.role, (one.index + 1) % spec.role(one.role).replicas)

    return replace(plan, steps=tuple(step.moved(other) for step in plan.steps))

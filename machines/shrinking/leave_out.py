"""Leave out steps of a failing plan, or find a plainer plan that fails in the same way."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from graphquake.harness.spec.plan import Plan
from graphquake.machines.plans.subplan import embeds
from graphquake.machines.shrinking.probdd import Removal, pairs, prior
from graphquake.machines.shrinking.repeats import puts_back
from graphquake.machines.shrinking.state import (
    EVEN,
    OFTEN,
    PASSES_MAX,
    UNLIKELY,
    ShrinkState,
)

# Before the confirming runs, the last check makes so many more trials than it needs. It then needs no more of them if the confirming runs
# show a lower failure rate than expected. With repetitions that costs no run.
EARLY_MARGIN: Final = 1.3


def leave_out_steps(state: ShrinkState) -> None:
    """Leave out steps of the minimal plan, as long as a smaller plan still breaks the promise.

    First come the sets of steps that `StepProbabilities.best` chooses. Then come pairs of steps of which neither can be left out alone.
    """
    if state.minimal_plan.stay_s:
        # A long stay after the last step takes more time than any step. So it is left out first.
        shorter = replace(state.now, plan=replace(state.minimal_plan, stay_s=0.0))
        if state.log.breaks(shorter.plan, state.passes(), "without its long stay", EVEN):
            state.accept(shorter)
    while (removal := state.now.best(state.log.is_set_aside)) is not None:
        _try_without(state, removal, "without " + state.names(removal))
    while any(_try_pair(state, *pair) for pair in pairs(state.minimal_plan)):
        pass


def _try_without(state: ShrinkState, removal: Removal, reason: str) -> None:
    """Run the minimal plan once without the steps of a removal.

    If a run without them broke the promise, the smaller plan is accepted. Otherwise these steps are more probably needed than before.
    """
    log, smaller = state.log, state.now.without(removal)
    _doubt(state, removal, smaller.plan)
    count = log.count(smaller.plan)
    # The load alone is all that is left. The controls of earlier findings answer the question, too.
    alone = not smaller.plan.disturbs
    known = alone and count.against >= state.controls
    kept_before = 0 if known else count.against
    if smaller.plan not in log.aside and not known:
        likely = state.now.chance(removal) * state.rate()
        wanted = min(state.times(), state.controls) if alone else state.times()
        trials = log.trials(smaller.plan, wanted)
        log.once_more(smaller.plan, reason, likely, fresh=False, trials=trials)
    if log.has_broken(smaller.plan) and smaller.plan not in log.eroded:
        state.accept(smaller)
        return
    state.note_kept(state.now.chance(removal))
    trials = max(1, count.against - kept_before)
    state.now = state.now.kept(removal, 1 - (1 - state.rate()) ** trials)


def _doubt(state: ShrinkState, removal: Removal, smaller: Plan) -> None:
    """Doubt the later repetitions of a smaller plan if they put back a step of the removal."""
    left_out = [state.minimal_plan.steps[place] for place in removal]
    if state.repeats is not None and puts_back(state.spec, smaller, left_out):
        state.log.doubted.add(smaller)


def _try_pair(state: ShrinkState, one: int, two: int) -> bool:
    """Run the minimal plan without two of its steps, until a run breaks or enough runs are kept. True if it still breaks."""
    removal = state.now.mended(frozenset([one, two]))
    smaller = state.now.without(removal)
    _doubt(state, removal, smaller.plan)
    reason = "without both " + state.names(removal)
    if not state.log.breaks(smaller.plan, state.passes(), reason, UNLIKELY):
        return False
    state.accept(smaller)
    return True


def try_plainer(state: ShrinkState) -> None:
    """If the minimal plan has several steps, run each of the plainest plans, and accept one that breaks the promise.

    A plainest plan that embeds in the minimal plan is skipped: leaving out steps has tried it already.
    """
    for plan in state.plainest:
        plain = prior(state.spec, replace(plan, heal=state.original.heal))
        if len(state.minimal_plan.steps) <= 1 or embeds(plain.plan, state.minimal_plan):
            continue
        # Where failures are rare, one kept run of the search does not tell enough.
        known = 0 if state.rate() >= OFTEN else state.log.count(plain.plan).ever_kept
        passes = known + state.times()
        if state.log.breaks(plain.plan, passes, "is a plainer plan enough", UNLIKELY):
            state.accept(plain)


def leave_out_singles(state: ShrinkState, *, early: bool = False) -> bool:
    """Leave out each single step, often enough to be sure that the failure needs the step.

    In each turn, every step is left out in one more run, beginning with the step that is probably needed the least. If one step can be
    left out, the runs for the other steps were wasted. Taking turns keeps that waste small.

    A plan without any disturbance gets fewer runs: if such a plan broke the promise, the search would have seen that all the time.

    Args:
        state: the shrink.
        early: true before the confirming runs.

    Returns:
        True if a step could be left out. The caller then begins again with the smaller plan.
    """
    passes = state.passes_to_be_sure()
    if early and state.times() > 1:
        passes = min(PASSES_MAX, math.ceil(passes * EARLY_MARGIN))
    order = sorted(range(len(state.now.needed)), key=lambda place: state.now.needed[place])
    for turn in range(1, passes + 1):
        for place in order:
            removal = state.now.mended(frozenset([place]))
            smaller = state.now.without(removal)
            _doubt(state, removal, smaller.plan)
            of = passes if smaller.plan.disturbs else min(passes, state.controls)
            reason = "is it minimal: without " + state.names(removal)
            if turn <= of and state.log.breaks(smaller.plan, turn, reason, UNLIKELY, of=of):
                state.accept(smaller)
                return True
    return False

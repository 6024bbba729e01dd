"""Leave out steps of a failing plan, or find a plainer plan that fails in the same way."""

from __future__ import annotations

from dataclasses import replace

from graphquake.machines.plans.subplan import embeds
from graphquake.machines.shrinking.probdd import Removal, pairs, prior
from graphquake.machines.shrinking.state import EVEN, UNLIKELY, ShrinkState


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
    if smaller.plan not in log.aside:
        likely = state.now.chance(removal) * state.rate()
        log.once_more(smaller.plan, reason, likely, fresh=False)
    if log.count(smaller.plan).ever_broke and smaller.plan not in log.eroded:
        state.accept(smaller)
    else:
        state.now = state.now.kept(removal, state.rate())


def _try_pair(state: ShrinkState, one: int, two: int) -> bool:
    """Run the minimal plan without two of its steps, until a run breaks or enough runs are kept. True if it still breaks."""
    removal = state.now.mended(frozenset([one, two]))
    smaller = state.now.without(removal)
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
        if len(state.minimal_plan.steps) == 1 or embeds(plain.plan, state.minimal_plan):
            continue
        if state.log.breaks(plain.plan, 1, "is a plainer plan enough", UNLIKELY):
            state.accept(plain)


def leave_out_singles(state: ShrinkState) -> bool:
    """Leave out each single step, often enough to be sure that the failure needs the step.

    In each turn, every step is left out in one more run, beginning with the step that is probably needed the least. If one step can be
    left out, the runs for the other steps were wasted. Taking turns keeps that waste small.

    Returns:
        True if a step could be left out. The caller then begins again with the smaller plan.
    """
    passes = state.passes_to_be_sure()
    order = sorted(range(len(state.now.needed)), key=lambda place: state.now.needed[place])
    for turn in range(1, passes + 1):
        for place in order:
            removal = state.now.mended(frozenset([place]))
            smaller = state.now.without(removal)
            reason = "is it minimal: without " + state.names(removal)
            if state.log.breaks(smaller.plan, turn, reason, UNLIKELY, of=passes):
                state.accept(smaller)
                return True
    return False

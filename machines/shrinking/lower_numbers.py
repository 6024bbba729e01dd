"""Lower the numbers of a failing plan: waits, bursts, and the length of the run.

A plan with a lower number may still break the promise, but less often. So each lower number is tested. It is accepted if the failure rate
before explains its runs clearly better than a quarter of that rate does (sequential likelihood ratio test: A. Wald, 1945).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from graphquake.harness.spec.feasible import feasible
from graphquake.harness.spec.plan import Plan
from graphquake.harness.spec.steps.kind import disturbs
from graphquake.machines.shrinking.parameters import WITHIN, WITHIN_TIME, Number, numbers, smallest
from graphquake.machines.shrinking.state import EVEN, OFTEN, UNLIKELY, ShrinkState

# The likelihood ratio from which on a lower number is accepted. A single broken run reaches it.
SPEAKS_FOR: Final = 4.0
# The same for a failure rate below `OFTEN`. There a single broken run says less, so two are needed.
SPEAKS_FOR_SELDOM: Final = 8.0
# The likelihood ratio up to which a lower number is rejected.
SPEAKS_AGAINST: Final = 0.1
QUARTER: Final = 0.25
# The most runs for all numbers together. At a low failure rate, each value that is tried costs about ten runs. The limit does little harm:
# a number that is not lowered is only larger than necessary.
NUMBER_RUNS_MAX: Final = 16
# The same if candidates are repeated within one run. Each of these runs takes longer.
REPEATED_RUNS_MAX: Final = 8


def simplify_steps(state: ShrinkState) -> None:
    """Replace each step by a simpler one, again and again, if the plan then breaks as often as before (see `Step.simpler`)."""
    for place in range(len(state.minimal_plan.steps)):
        while any(
            _accepts(state, state.minimal_plan.with_step(place, step), f"is this enough: {step}")
            for step in state.minimal_plan.steps[place].simpler(state.spec)
        ):
            pass


def lower_numbers(state: ShrinkState) -> None:
    """Lower each number of the minimal plan. First try the least values of all numbers that seldom matter, all at once."""
    all_numbers = list(numbers(state.minimal_plan))
    seldom = [
        number
        for number in all_numbers
        if number.knob.seldom and number.of(state.minimal_plan) > number.knob.least
    ]
    if len(seldom) > 1:
        lower = state.minimal_plan
        for number in seldom:
            lower = number.put(lower, number.knob.least)
        names = ", ".join(dict.fromkeys(number.name for number in seldom))
        _accepts(state, lower, "all at once: " + names)
    until = len(state.log.all) + (NUMBER_RUNS_MAX if state.times() == 1 else REPEATED_RUNS_MAX)
    for number in all_numbers:
        _lower(state, number, until)


def _lower(state: ShrinkState, number: Number, until: int) -> None:
    """Lower one number of the minimal plan, as long as the log has fewer than `until` runs."""
    log = state.log
    below: list[Plan] = []

    def accepts(value: float) -> bool:
        lower, name = number.put(state.minimal_plan, value), f"{number.name} {value:g}"
        if len(log.all) >= until:
            return False
        if not _accepts(state, lower, name, is_time=number.knob.is_time or number.place < 0):
            below.append(lower)
        return lower == state.minimal_plan

    value = number.of(state.minimal_plan)
    knob, within = number.knob, WITHIN_TIME if number.knob.is_time else WITHIN
    matters = knob.matters or _is_only_disturbance(state, number)
    smallest(value, knob.least, knob.unit, accepts, matters=matters, within=within)
    # Each rejected value is higher than the rejected values before it. If only used graphs rejected the last one, a fresh graph must agree.
    if below and log.count(below[-1]).used_kept and not log.count(below[-1]).fresh_kept:
        again = log.once_more(below[-1], f"below {number.name}", UNLIKELY)
        if again.kind == "broken":
            log.reuse = None
            _lower(state, number, until)


def _is_only_disturbance(state: ShrinkState, number: Number) -> bool:
    """True if the number is the length of the only disturbance, and runs without it were kept. The least length is hardly more."""
    acts = [place for place, step in enumerate(state.minimal_plan.steps) if disturbs(step)]
    kept = (count.ever_kept for plan, count in state.log.counts() if not plan.disturbs)
    return number.knob.is_time and acts == [number.place] and any(kept)


def _accepts(state: ShrinkState, lower: Plan, reason: str, *, is_time: bool = False) -> bool:
    """Run a plan with lower numbers or a simpler step until the likelihood ratio accepts or rejects it.

    Args:
        state: the shrink.
        lower: the plan.
        reason: the reason for the runs, in words.
        is_time: true if the plan only has a shorter wait. The pause between two repetitions is a long wait. So a later repetition that
            breaks says nothing.

    Returns:
        True if the plan breaks about as often as the minimal plan. It is then the new minimal plan.
    """
    if not feasible(state.spec, lower):
        # With less waiting, a replica that the supervisor restarts may not be back in time for the next step.
        return False
    log, smaller = state.log, replace(state.now, plan=lower)
    if is_time:
        log.doubted.add(lower)
    rate = min(state.rate(), 0.99)
    low = rate * QUARTER
    while not log.is_set_aside(smaller.plan):
        count = log.count(smaller.plan)
        broke, kept = count.ever_broke, count.ever_kept
        if count.later_broke and log.doubts(lower):
            broke, kept = broke - count.later_broke, count.against
        speaks = (rate / low) ** broke
        speaks *= ((1 - rate) / (1 - low)) ** kept
        enough = SPEAKS_FOR if rate >= OFTEN else SPEAKS_FOR_SELDOM
        if broke and speaks >= enough * 0.999:
            state.accept(smaller)
            return True
        if speaks <= SPEAKS_AGAINST:
            return False
        unlikelier = (1 - rate) / (1 - low)
        to_reject = math.ceil(math.log(SPEAKS_AGAINST / speaks) / math.log(unlikelier))
        trials = log.trials(lower, to_reject)
        log.once_more(lower, reason, EVEN, fresh=False, trials=trials)
    return False

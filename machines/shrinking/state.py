"""The state of one shrink, and its estimate of the failure rate of the minimal plan.

The failure rate of a plan is the share of its runs that break the promise. Invalid runs do not count.
`leave_out`, `lower_numbers` and `confirm` are the parts of a shrink. Each works on one `ShrinkState`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.shrinking.probdd import Removal, StepProbabilities, prior
from graphquake.machines.shrinking.repeats import Repeated, Repeats, repeated
from graphquake.machines.shrinking.stats import cautious, passes_to_reject, rate_of_accepted
from graphquake.machines.shrinking.trials import Count, TrialLog

# A finding is unconfirmed if none of this many fresh runs shows it again. This happens to one finding in eight if the failure rate is .3,
# and to one in 250 if it is .6.
REPRODUCE_MAX: Final = 6
# With so many kept trials they end sooner. A failure that shows in a fifth of the trials is missed in 3 of 100 shrinks then.
REPRODUCE_TRIALS: Final = 16
# The most kept runs that reject a plan in the last check or on fresh graphs, however low the failure rate is. If a plan has a failure rate
# of .22, at least one of this many runs breaks with a probability of 95%.
PASSES_MAX: Final = 12
# The probability with which an unnecessary step must show that it is unnecessary. It is above the usual 95%, because a minimal plan has
# several steps, and each of them may be left in by chance.
MINIMAL_SURE: Final = 0.985
# In the estimate for the last check, the failure rate of all accepted plans weighs as much as this many runs of the minimal plan.
BEFORE_RUNS: Final = 3
# From this failure rate on, an unnecessary step is hardly ever left in by chance. So single steps are checked only in the last check.
OFTEN: Final = 0.80
# At a lower failure rate, a candidate is repeated in one run: so often that a run of the minimal plan would break with this probability.
# At .9 a shrink takes no fewer runs, and a fifth more seconds.
REPEATED_SURE: Final = 0.80
# The most runs of one plan that only tell how often it breaks, and whether later repetitions can break.
LEARN_RUNS_MAX: Final = 3
# The number of repetitions as long as the failure rate is not known.
LEARN_TIMES: Final = 4
# If kept candidates are so many times more likely at a failure rate of `SELDOM` than at 1, the minimal plan is run again, to see how often
# it breaks.
SURPRISING: Final = 12.0
SELDOM: Final = 0.3
SURPRISE_MAX: Final = 0.95
# Rough probabilities that the next run breaks the promise. Only speculation uses them.
LIKELY: Final = 0.85
EVEN: Final = 0.5
UNLIKELY: Final = 0.05
HOW_OFTEN: Final = "how often does it break"


@dataclass(slots=True)
class ShrinkState:
    """The state of one shrink.

    Attributes:
        spec: the graph.
        original: the plan that was seen to fail.
        log: the runs of this shrink.
        plainest: plans of one step that are tried in place of a plan with several steps.
        confirmations: the most fresh runs that the minimal plan gets to be confirmed.
        enough: the number of fresh broken runs that confirm the minimal plan.
        controls: the number of trials that the minimal plan without its faults must have.
        repeats: how plans may be repeated within one run, or None if they may not.
        held: the accepted plans, the smallest last. Empty until a run has reproduced the failure.
        now: the last accepted plan, with the probabilities of its steps.
        surprise: how much more likely the kept candidates since the last look at the failure rate are at `SELDOM` than at 1.
    """

    spec: GraphSpec
    original: Plan
    log: TrialLog
    plainest: Sequence[Plan]
    confirmations: int
    controls: int
    enough: int
    repeats: Repeats | None = None
    held: list[Plan] = field(default_factory=list)
    now: StepProbabilities = field(init=False)
    surprise: float = 1.0

    def __post_init__(self) -> None:
        self.now = prior(self.spec, self.original)
        if self.repeats is not None:
            self.log.repeat, self.log.times = self._repeated, self.times

    def _repeated(self, plan: Plan, times: int) -> Repeated | None:
        if self.repeats is None or (times := self.repeats.times_of(plan, times)) == 1:
            return None
        return repeated(self.spec, plan, times, self.repeats.pause_s)

    @property
    def minimal_plan(self) -> Plan:
        """The smallest accepted plan, or the original plan if none was accepted."""
        return self.held[-1] if self.held else self.original

    def accept(self, smaller: StepProbabilities) -> None:
        """Make a plan that broke the promise the new minimal plan."""
        if smaller.plan not in self.held:
            self.held.append(smaller.plan)
        self.now = smaller.after_last(self.log.shown(smaller.plan).last_step)

    def step_back(self) -> None:
        """Give up the minimal plan. The plan that was accepted before it is the minimal plan again.

        The minimal plan is given up if it breaks too seldom, or not at all on fresh graphs. It then counts as a plan that does not break.
        """
        self.log.eroded.add(self.held.pop())
        self._look_at_minimal()

    def step_back_to_proof(self) -> None:
        """Give up the minimal plan, and the plans before it that have not broken on a fresh graph either.

        The first accepted plan is given up last, and only if it is the minimal plan. No plan is accepted then.
        """
        self.log.eroded.add(self.held.pop())
        while len(self.held) > 1 and not self.log.count(self.minimal_plan).fresh_broke:
            self.held.pop()
        self._look_at_minimal()

    def step_back_to_believed(self) -> None:
        """Give up the plans that broke in later repetitions only, and that no plan follows that broke otherwise."""
        while self.held and not self.log.count(self.minimal_plan).believed_broke:
            self.held.pop()
        self._look_at_minimal()

    def _look_at_minimal(self) -> None:
        if self.now.plan != self.minimal_plan:
            self.now = prior(self.spec, self.minimal_plan)

    def names(self, removal: Removal) -> str:
        """The text of the steps of a removal, with commas between them."""
        return ", ".join(f"{self.minimal_plan.steps[place]}" for place in sorted(removal))

    def pooled(self, plans: Iterable[Plan]) -> Count:
        """The sums of the counts of several plans, on any graphs."""
        pooled = Count()
        for plan in dict.fromkeys(plans):
            count = self.log.count(plan)
            pooled.broke += count.broke + count.used_broke
            pooled.kept += count.kept + count.used_kept
            pooled.later_broke += count.repeated_broke
            pooled.later_kept += count.repeated_kept
        return pooled

    def own(self) -> tuple[int, int]:
        """How many fresh runs of the minimal plan broke the promise, and how many broke or kept it.

        The run that accepted the minimal plan does not count: the plan was chosen because of that run.
        """
        own = self.log.count(self.minimal_plan)
        accepting = min(own.broke, 0 if own.used_broke + own.repeated_broke else 1)
        return own.broke - accepting, own.runs - accepting

    def rate(self) -> float:
        """Estimate the failure rate of the accepted plans, from all of their runs. It decides how many runs a candidate gets."""
        return rate_of(self.pooled(self.held))

    def times(self) -> int:
        """The number of trials that one run makes of a candidate.

        It is 1 at a high failure rate, and as long as it is not known that later repetitions can break.
        """
        return self._times_now() if self.log.later_broke else 1

    def _times_now(self) -> int:
        rate = self.rate()
        if self.repeats is None or rate >= OFTEN:
            return 1
        return passes_to_reject(rate, REPEATED_SURE)

    def learn_rate(self) -> None:
        """If the failure rate is low, run the minimal plan repeatedly, until it is known that later repetitions can break."""
        for _ in range(LEARN_RUNS_MAX):
            times = self._times_now()
            if times == 1 or self.log.later_broke or self.minimal_plan in self.log.aside:
                return
            self.log.once_more(self.minimal_plan, HOW_OFTEN, LIKELY, trials=times)

    def note_kept(self, chance: float) -> None:
        """Note a kept candidate. If too many of them were likely to break, the failure rate may be low: find out.

        Args:
            chance: the probability so far that the failure does not need the steps that were left out.
        """
        if self.repeats is None or self.log.later_broke:
            return
        self.surprise *= (1 - SELDOM * chance) / (1 - min(chance, SURPRISE_MAX))
        if self.surprise > SURPRISING and self.minimal_plan not in self.log.aside:
            again = self.log.once_more(self.minimal_plan, HOW_OFTEN, LIKELY, trials=LEARN_TIMES)
            self.surprise = SELDOM if again.kind == "broken" else 1.0
            self.learn_rate()

    def passes(self) -> int:
        """The number of kept runs that reject a candidate with fewer steps, before the last check."""
        return passes_to_reject(self.rate())

    def passes_to_be_sure(self) -> int:
        """The number of kept runs that reject a candidate in the last check, where each single step is left out.

        It is higher than `passes`, for two reasons. The failure rate is a cautious estimate, and the required certainty is `MINIMAL_SURE`.
        It is at most `PASSES_MAX`.
        """
        broke, runs = self.own()
        count = self.log.count(self.minimal_plan)
        if count.repeated_broke:
            # The repetition that accepted the plan does not count either.
            broke += count.repeated_broke - 1
            runs += count.repeated_broke + count.repeated_kept - 1
        rate = cautious(broke + BEFORE_RUNS * self.rate(), runs + BEFORE_RUNS)
        return min(PASSES_MAX, passes_to_reject(rate, MINIMAL_SURE))


def rate_of(count: Count) -> float:
    """Estimate the failure rate of accepted plans from the sum of their counts (see `rate_of_accepted`)."""
    return rate_of_accepted(count.broke, count.runs, count.repeated_broke, count.repeated_kept)

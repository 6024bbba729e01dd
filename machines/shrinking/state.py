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
from graphquake.machines.shrinking.stats import cautious, on_the_way, passes_to_reject
from graphquake.machines.shrinking.trials import Count, TrialLog

# A finding is unconfirmed if none of this many fresh runs shows it again. This happens to one finding in eight if the failure rate is .3,
# and to one in 250 if it is .6.
REPRODUCE_MAX: Final = 6
# The most kept runs that reject a plan in the last check or on fresh graphs, however low the failure rate is. If a plan has a failure rate
# of .22, at least one of this many runs breaks with a probability of 95%.
PASSES_MAX: Final = 12
# The probability with which an unnecessary step must show that it is unnecessary. It is above the usual 95%, because a minimal plan has
# several steps, and each of them may be left in by chance.
MINIMAL_SURE: Final = 0.97
# In the estimate for the last check, the failure rate of all accepted plans weighs as much as this many runs of the minimal plan.
BEFORE_RUNS: Final = 4
# From this failure rate on, an unnecessary step is hardly ever left in by chance. So single steps are checked only in the last check.
OFTEN: Final = 0.80
# Rough probabilities that the next run breaks the promise. Only speculation uses them.
LIKELY: Final = 0.85
EVEN: Final = 0.5
UNLIKELY: Final = 0.05


@dataclass(slots=True)
class ShrinkState:
    """The state of one shrink.

    Attributes:
        spec: the graph.
        original: the plan that was seen to fail.
        log: the runs of this shrink.
        plainest: plans of one step that are tried in place of a plan with several steps.
        confirmations: the number of fresh runs that the minimal plan must have.
        controls: the number of runs that the minimal plan without its faults must have.
        held: the accepted plans, the smallest last. Empty until a run has reproduced the failure.
        now: the last accepted plan, with the probabilities of its steps.
    """

    spec: GraphSpec
    original: Plan
    log: TrialLog
    plainest: Sequence[Plan]
    confirmations: int
    controls: int
    held: list[Plan] = field(default_factory=list)
    now: StepProbabilities = field(init=False)

    def __post_init__(self) -> None:
        self.now = prior(self.spec, self.original)

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
        if self.now.plan != self.minimal_plan:
            self.now = prior(self.spec, self.minimal_plan)

    def names(self, removal: Removal) -> str:
        """The text of the steps of a removal, with commas between them."""
        return ", ".join(f"{self.minimal_plan.steps[place]}" for place in sorted(removal))

    def pooled(self, plans: Iterable[Plan]) -> Count:
        """The sums of the counts of several plans, on any graphs."""
        counts = [self.log.count(plan) for plan in dict.fromkeys(plans)]
        return Count(sum(c.ever_broke for c in counts), sum(c.ever_kept for c in counts))

    def own(self) -> tuple[int, int]:
        """How many fresh runs of the minimal plan broke the promise, and how many broke or kept it.

        The run that accepted the minimal plan does not count: the plan was chosen because of that run.
        """
        own = self.log.count(self.minimal_plan)
        accepting = min(own.broke, 0 if own.used_broke else 1)
        return own.broke - accepting, own.runs - accepting

    def rate(self) -> float:
        """Estimate the failure rate of the accepted plans, from all of their runs. It decides how many runs a candidate gets."""
        count = self.pooled(self.held)
        return on_the_way(count.broke, count.runs)

    def passes(self) -> int:
        """The number of kept runs that reject a candidate with fewer steps, before the last check."""
        return passes_to_reject(self.rate())

    def passes_to_be_sure(self) -> int:
        """The number of kept runs that reject a candidate in the last check, where each single step is left out.

        It is higher than `passes`, for two reasons. The failure rate is a cautious estimate, and the required certainty is `MINIMAL_SURE`.
        It is at most `PASSES_MAX`.
        """
        broke, runs = self.own()
        rate = cautious(broke + BEFORE_RUNS * self.rate(), runs + BEFORE_RUNS)
        return min(PASSES_MAX, passes_to_reject(rate, MINIMAL_SURE))

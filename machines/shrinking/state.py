"""The state of one shrink, and its estimate of the failure rate of the minimal plan.

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

# A plan that is not seen again in this many fresh runs is unconfirmed. One finding in eight ends so at a rate of .3, and one in 250 at .6.
REPRODUCE_MAX: Final = 6
# The most kept runs that one candidate gets, however low the rate. They reject a rate of .22 with 95%.
PASSES_MAX: Final = 12
# A minimal plan has several steps, and each may be there by accident. So each is tried more often than 95% would ask for.
MINIMAL_SURE: Final = 0.97
# The rate of the plans before counts as this many runs of the minimal plan.
BEFORE_RUNS: Final = 4
# Above this rate, a step is hardly ever kept by accident, so it is soon enough to look again at the end.
OFTEN: Final = 0.80
# The probability that a run breaks, if there is no better estimate. Only speculation depends on these.
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
        plainest: plans of one step that may stand for a plan of several.
        confirmations: the number of fresh runs of the minimal plan.
        controls: the number of runs of the minimal plan without its faults.
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
        """Take a plan that broke as the minimal plan."""
        if smaller.plan not in self.held:
            self.held.append(smaller.plan)
        self.now = smaller.after_last(self.log.shown(smaller.plan).last_step)

    def step_back(self) -> None:
        """Give up the minimal plan, whose rate is too low. The accepted plan before it is the minimal plan again."""
        self.log.eroded.add(self.held.pop())
        if self.now.plan != self.minimal_plan:
            self.now = prior(self.spec, self.minimal_plan)

    def names(self, removal: Removal) -> str:
        """The steps of a removal, in words."""
        return ", ".join(f"{self.minimal_plan.steps[place]}" for place in sorted(removal))

    def pooled(self, plans: Iterable[Plan]) -> Count:
        """The counts of several plans together."""
        counts = [self.log.count(plan) for plan in dict.fromkeys(plans)]
        return Count(sum(c.ever_broke for c in counts), sum(c.ever_kept for c in counts))

    def own(self) -> tuple[int, int]:
        """The number of fresh runs of the minimal plan that broke the promise, and the number of all of them.

        The run that accepted it does not count: the plan was chosen for that run.
        """
        own = self.log.count(self.minimal_plan)
        accepting = min(own.broke, 0 if own.used_broke else 1)
        return own.broke - accepting, own.runs - accepting

    def rate(self) -> float:
        """The rate to search by."""
        count = self.pooled(self.held)
        return on_the_way(count.broke, count.runs)

    def passes(self) -> int:
        """The number of kept runs that reject a candidate while steps are left out."""
        return passes_to_reject(self.rate())

    def passes_to_be_sure(self) -> int:
        """The number of kept runs of a candidate which say, cautiously, that it does not break at the minimal plan's rate."""
        broke, runs = self.own()
        rate = cautious(broke + BEFORE_RUNS * self.rate(), runs + BEFORE_RUNS)
        return min(PASSES_MAX, passes_to_reject(rate, MINIMAL_SURE))

"""Live runs of candidates: remembered, repeated as often as a decision needs, and counted.

Noise is one-sided. One failure accepts a candidate; how many passes reject it follows from the rate of the plan that is being shrunk.
While shrinking goes on, a candidate is rejected when one is 80% sure, which costs about half the runs; before a plan is called minimal,
every single removal is tried again until one is 95% sure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from graphquake.harness.plan import Plan
from graphquake.harness.spec import GraphSpec
from graphquake.machines.model import mend
from graphquake.machines.rates import estimate, passes_to_reject

QUICK: Final = 0.80
SURE: Final = 0.95
# A candidate whose runs prove nothing is set aside after this many of them.
INVALID_MAX: Final = 3
# Nobody waits for more passes than this, however rare the bug: 11 at a rate of .25 are 95%.
PASSES_MAX: Final = 11

Answer: TypeAlias = Literal["fails", "passes", "untested"]


class OutOfBudget(Exception):
    """No further run fits into the budget."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One live run of a candidate.

    Attributes:
        says: `broken` if it shows the violation that is being shrunk, and no case explains it.
        last_step: the last step that had begun when the violation began; -1 if none had.
    """

    says: Literal["broken", "kept", "invalid"]
    last_step: int = -1


@dataclass(slots=True)
class Count:
    """The runs of one plan."""

    broke: int = 0
    kept: int = 0
    invalid: int = 0

    @property
    def runs(self) -> int:
        """Those that prove something."""
        return self.broke + self.kept


@dataclass(slots=True)
class Trials:
    """All runs of one shrink.

    Attributes:
        run: one fresh live run; raises `OutOfBudget`.
        counts: plan -> what its runs said.
        lineage: the plans that were accepted, the first one first; the last is the best so far.
    """

    spec: GraphSpec
    run: Callable[[Plan], Trial]
    counts: dict[Plan, Count] = field(default_factory=dict)
    lineage: list[Plan] = field(default_factory=list)
    live_runs: int = 0

    @property
    def best(self) -> Plan:
        """The smallest plan that was seen to fail."""
        return self.lineage[-1]

    @property
    def rate(self) -> float:
        """The rate of the bug: over the runs of all plans that were accepted, cautiously."""
        counts = [self.count(plan) for plan in self.lineage]
        return estimate(sum(c.broke for c in counts), sum(c.runs for c in counts))

    def count(self, plan: Plan) -> Count:
        """What is known about a plan."""
        return self.counts.setdefault(plan, Count())

    def once(self, plan: Plan) -> Trial:
        """One more fresh run."""
        trial = self.run(plan)
        self.live_runs += 1
        count = self.count(plan)
        count.broke += trial.says == "broken"
        count.kept += trial.says == "kept"
        count.invalid += trial.says == "invalid"
        return trial

    def accept(self, plan: Plan) -> None:
        """From now on this is the best."""
        self.lineage.append(plan)

    def ask(self, plan: Plan, sure: float = QUICK) -> Answer:
        """Whether a plan fails: run until one run fails, or enough passed."""
        needed = min(PASSES_MAX, passes_to_reject(self.rate, sure))
        count = self.count(plan)
        while True:
            if count.broke:
                return "fails"
            if count.kept >= needed:
                return "passes"
            if count.invalid >= INVALID_MAX:
                return "untested"
            self.once(plan)

    def reduces(self, candidate: Plan, sure: float = QUICK) -> bool:
        """Whether a candidate fails, too; then it is the best from now on."""
        candidate = mend(self.spec, candidate)
        if candidate == self.best or not _smaller(candidate, self.best):
            return False
        if self.ask(candidate, sure) != "fails":
            return False
        self.accept(candidate)
        return True


def _smaller(one: Plan, other: Plan) -> bool:
    """A candidate must lose something; what it does not lose must not grow."""
    return len(one.steps) < len(other.steps) or one != other

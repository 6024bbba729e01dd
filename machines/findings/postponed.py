"""A plan that broke a promise once, and did not break it in each of the runs that followed."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Violation
from graphquake.harness.spec.plan import Plan
from graphquake.machines.runners.runner import RunResult
from graphquake.machines.shrinking.trials import Count, Trial


@dataclass(slots=True)
class Postponed:
    """A plan that waits for more runs.

    Attributes:
        plan: the plan.
        first: the run in which it broke the promise.
        violation: the violation in that run.
        others: the counts of its other runs, without invalid ones.
        invalid: the number of its invalid runs.
    """

    plan: Plan
    first: RunResult
    violation: Violation
    others: Count = field(default_factory=Count)
    invalid: int = 0

    @property
    def tried(self) -> int:
        """The number of other runs that did not break the promise."""
        return self.others.kept + self.invalid

    def note(self, trial: Trial) -> None:
        """Count another run."""
        if trial.kind == "invalid":
            self.invalid += 1
        else:
            self.others.add(trial)

    def is_about(self, plan: Plan, signature: Signature) -> bool:
        """True if the plan waits because of this signature."""
        return self.plan == plan and self.violation.signature == signature

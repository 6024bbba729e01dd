"""The live runs of one shrink, and the counts of each plan.

The shrinker asks the `TrialLog` for runs. If a plan was run before, its counts answer the question as far as they reach. Every run counts
for every later question: a run that accepted a candidate is also one of its confirming runs, if it becomes the minimal plan.
`shrink` interprets the answers. `speculation` begins runs before they are asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from graphquake.harness.promises.verdict import VerdictKind
from graphquake.harness.spec.plan import Plan, Step, Wait
from graphquake.machines.plans.subplan import embeds

# An invalid run is repeated this often. Then the plan is set aside.
REPEATS_MAX: Final = 2
# Two kept runs are enough to reject only where the rate is about .9, so that accidents are rare.
RARE_ACCIDENTS: Final = 2


@dataclass(frozen=True, slots=True)
class Trial:
    """One live run of a plan, read for one signature.

    Attributes:
        kind: `broken` if it showed a violation of the wanted signature that no known case explains. `invalid` if its verdict is.
        last_step: the index of the last step that had begun when that violation began, or -1 if it is not known.
        blame: for each step of the plan, a factor on its odds of having caused the violation (1 is neutral). Empty if it is not known.
        used: the graph had been used by an earlier run.
    """

    kind: VerdictKind
    last_step: int = -1
    blame: tuple[float, ...] = ()
    used: bool = False


@dataclass(frozen=True, slots=True)
class Tried:
    """One live run: the plan, the trial, and the reason for the run."""

    plan: Plan
    trial: Trial
    reason: str


@dataclass(slots=True)
class Count:
    """The numbers of runs of a plan that broke and that kept the promise. Invalid runs do not count.

    Attributes:
        broke: broken runs on fresh graphs.
        kept: kept runs on fresh graphs.
        used_broke: broken runs on used graphs.
        used_kept: kept runs on used graphs.
    """

    broke: int = 0
    kept: int = 0
    used_broke: int = 0
    used_kept: int = 0

    @property
    def runs(self) -> int:
        """The runs on fresh graphs that proved something."""
        return self.broke + self.kept

    @property
    def ever_broke(self) -> int:
        """Broken runs on any graph."""
        return self.broke + self.used_broke

    @property
    def ever_kept(self) -> int:
        """Kept runs on any graph."""
        return self.kept + self.used_kept

    def add(self, trial: Trial) -> None:
        """Count a run that proved something."""
        broke = trial.kind == "broken"
        if trial.used:
            self.used_broke += broke
            self.used_kept += not broke
        else:
            self.broke += broke
            self.kept += not broke


# Makes one live run.
RunPlan = Callable[[Plan], Trial]
# Called before a live run with its reason, its plan, and the probability that it breaks.
OnTrial = Callable[[str, Plan, float], None]


@dataclass(slots=True)
class TrialLog:
    """The live runs of one shrink.

    Attributes:
        run: makes one live run on a fresh graph.
        on_trial: called before each live run.
        reuse: makes one live run on a used graph if there is one, or None if every run needs a fresh graph.
        all: every live run, in order.
        aside: plans that are set aside, because all of their runs were invalid.
        eroded: plans that break too seldom to show the finding. They count as kept.
    """

    run: RunPlan
    on_trial: OnTrial | None = None
    reuse: RunPlan | None = None
    all: list[Tried] = field(default_factory=list)
    aside: set[Plan] = field(default_factory=set)
    eroded: set[Plan] = field(default_factory=set)
    _counts: dict[Plan, Count] = field(default_factory=dict)
    _last: dict[Plan, Trial] = field(default_factory=dict)

    def count(self, plan: Plan) -> Count:
        """The counts of a plan."""
        return self._counts.setdefault(plan, Count())

    def counts(self) -> list[tuple[Plan, Count]]:
        """All plans with a run that proved something, with their counts."""
        return [
            (plan, count)
            for plan, count in self._counts.items()
            if count.ever_broke + count.ever_kept
        ]

    def shown(self, plan: Plan) -> Trial:
        """The last run of a plan that broke the promise."""
        return self._last[plan]

    def once_more(self, plan: Plan, reason: str, likely: float, *, fresh: bool = True) -> Trial:
        """Make one more live run of a plan. An invalid run is repeated. After too many of them, the plan is set aside.

        Args:
            plan: the plan.
            reason: the reason for the run, in words.
            likely: the probability that it breaks. Only speculation depends on it.
            fresh: the run needs a fresh graph. A repeated run always gets one.

        Raises:
            BudgetSpent: if no run is left.
        """
        run = self.run if fresh or self.reuse is None else self.reuse
        for _ in range(1 + REPEATS_MAX):
            if self.on_trial is not None:
                self.on_trial(reason, plan, likely)
            trial = run(plan)
            run = self.run
            self.all.append(Tried(plan, trial, reason))
            if trial.kind != "invalid":
                self.count(plan).add(trial)
                break
        else:
            self.aside.add(plan)
        if trial.kind == "broken":
            self._last[plan] = trial
        return trial

    def breaks(
        self, plan: Plan, passes: int, reason: str, likely: float, *, of: int | None = None
    ) -> bool:
        """True if a plan breaks the promise: one broken run says yes, `passes` kept runs say no.

        A plan that was set aside, or that breaks too seldom (`eroded`), counts as a plan that does not break.

        Args:
            plan: the plan.
            passes: the number of kept runs that reject it.
            reason: the reason for its runs, in words.
            likely: the probability that a run breaks.
            of: the number of kept runs in the end, if `passes` is only a part of them.
        """
        of = of or passes
        while not self.is_set_aside(plan):
            if self.count(plan).ever_broke:
                return True
            kept, agreed = self.kept_with_more(plan, of)
            if kept >= passes and (agreed or passes < of):
                return False
            self.once_more(plan, reason, likely, fresh=not agreed and kept >= of - 1)
        return False

    def kept_with_more(self, plan: Plan, passes: int) -> tuple[int, bool]:
        """Count the kept runs that speak against a plan: its own, and those of plans that did all that it does and more.

        | the kept runs are of | they count | because |
        |---|---|---|
        | the same steps, as much waiting, as much load or more | all of them | what holds under more load holds under less |
        | the same steps, other waits | up to `passes - 1` | a longer wait may hide the failure |
        | more steps | as one run, and only if `passes` is 2 | a step more may hide it; see below |

        The last two rows together never count more than `passes - 1`, so they leave at least one run to the plan itself. A plan with more
        steps counts at all only where the rate is about .9 (two passes reject). At lower rates it may well have been kept by accident,
        and the step was left in for that accident.

        Example: three passes reject `kill decode 0; wait 0.50 s`. The same plan with 2 s was kept in five runs: they count as two, so one
        run of the plan itself decides. A run of `kill decode 0; wait 0.50 s; burst 5 over 0.00 s` that was kept counts as none.

        Args:
            plan: the plan.
            passes: the number of kept runs that reject it.

        Returns:
            The count, and whether any of these runs had a fresh graph. Without one, no plan is rejected.
        """
        kept: Counter[_Relation] = Counter()
        fresh = 0
        for other, count in self._counts.items():
            if count.ever_kept and not count.ever_broke and embeds(plan, other):
                fresh += count.kept
                kept[_relation(plan, other)] += count.ever_kept
        indirect = kept["other waits"]
        if passes == RARE_ACCIDENTS and kept["more steps"]:
            indirect += 1
        return kept["same waits"] + min(indirect, max(0, passes - 1)), fresh > 0

    def is_set_aside(self, plan: Plan) -> bool:
        """True if no run of a plan can teach more: its runs are invalid, or it breaks too seldom."""
        return plan in self.aside or plan in self.eroded


_Relation: TypeAlias = Literal["same waits", "other waits", "more steps"]


def _relation(plan: Plan, other: Plan) -> _Relation:
    """The relation of a plan to one in which it embeds."""
    if len(other.steps) != len(plan.steps):
        return "more steps"
    return "same waits" if _waits(other) == _waits(plan) else "other waits"


def _waits(plan: Plan) -> list[Step]:
    return [step for step in plan.steps if isinstance(step, Wait)]

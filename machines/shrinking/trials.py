"""What was run while one finding is shrunk: every live run, what it said, and what was concluded from it.

The shrinker asks here for runs. A plan that was run before is answered from its counts as far as they reach, and every run counts for
whatever question comes up later: a run that accepted a candidate is also one of its confirming runs, if it becomes the minimal plan.
What the answers mean is left to `shrink`; candidates that are run beforehand, side by side, to `foresight`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from graphquake.harness.promises.verdict import VerdictKind
from graphquake.harness.spec.plan import Plan, Step, Wait
from graphquake.machines.plans.subplan import embeds

# An invalid run is repeated so often, one after the other; then the plan is set aside.
REPEATS_MAX: Final = 2
# Where two kept runs are enough to reject, the rate is about .9.
RARE_ACCIDENTS: Final = 2


@dataclass(frozen=True, slots=True)
class Trial:
    """What one fresh live run of a plan says about one signature.

    Attributes:
        kind: `broken` if it showed a violation of the wanted signature that no known case explains; `invalid` if it proves nothing.
        last_step: index of the last step that had begun when that violation did; -1 if that is not known.
        blame: for each step of the plan that was run, how much more likely than others of its kind it is to be behind the violation
            (1 is neutral); empty if nothing is known.
        used: whether the graph had been used by a run before.
    """

    kind: VerdictKind
    last_step: int = -1
    blame: tuple[float, ...] = ()
    used: bool = False


@dataclass(frozen=True, slots=True)
class Tried:
    """One live run: the plan, what it said, and why it was made."""

    plan: Plan
    trial: Trial
    reason: str


@dataclass(slots=True)
class Count:
    """How often a plan was broken and kept; invalid runs do not count.

    Attributes:
        broke, kept: on fresh graphs.
        used_broke, used_kept: on graphs that had been used before.
    """

    broke: int = 0
    kept: int = 0
    used_broke: int = 0
    used_kept: int = 0

    @property
    def runs(self) -> int:
        """Runs on fresh graphs that proved something."""
        return self.broke + self.kept

    @property
    def ever_broke(self) -> int:
        """On whatever graph."""
        return self.broke + self.used_broke

    @property
    def ever_kept(self) -> int:
        """On whatever graph."""
        return self.kept + self.used_kept

    def add(self, trial: Trial) -> None:
        """One more run that proved something."""
        broke = trial.kind == "broken"
        if trial.used:
            self.used_broke += broke
            self.used_kept += not broke
        else:
            self.broke += broke
            self.kept += not broke


RunPlan = Callable[[Plan], Trial]
# Why a run is made, of which plan, and how likely it is to break.
OnTrial = Callable[[str, Plan, float], None]


@dataclass(slots=True)
class TrialLog:
    """The live runs of one shrink.

    Attributes:
        run: makes one live run on a fresh graph.
        reuse: makes one on a graph that was used before, if there is one; None to begin each run with a fresh one.
        on_trial: told before each.
        all: every live run, in order.
        aside: plans that proved nothing as often as they were tried.
        eroded: plans that do break, but too seldom to stand for what was found; they count as kept.
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
        """What is known of a plan."""
        return self._counts.setdefault(plan, Count())

    def counts(self) -> list[tuple[Plan, Count]]:
        """All plans that were run, with what is known of them."""
        return [
            (plan, count)
            for plan, count in self._counts.items()
            if count.ever_broke + count.ever_kept
        ]

    def shown(self, plan: Plan) -> Trial:
        """The last run of a plan that broke it."""
        return self._last[plan]

    def once_more(self, plan: Plan, reason: str, likely: float, *, fresh: bool = True) -> Trial:
        """One more live run of a plan; while it is invalid, it is repeated, and at last set aside.

        Args:
            likely: how likely it is to break. Nothing but what is run beforehand depends on it.
            fresh: whether it has to be a fresh graph. When it is repeated, it is.

        Raises:
            BudgetSpent: if there is none left.
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
        """Whether a plan breaks the promise: one broken run says yes, so many kept ones say no.

        A plan that was set aside, or whose rate had eroded, is taken for one that does not; see `aside`.

        Args:
            of: how many passes it will take in the end, if this is only the first part of them.
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
            The count, and whether any of these runs had a fresh graph. Without one, nothing is rejected.
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
        """Whether nothing more is to be learnt from that plan: it proves nothing, or its rate had eroded."""
        return plan in self.aside or plan in self.eroded


_Relation: TypeAlias = Literal["same waits", "other waits", "more steps"]


def _relation(plan: Plan, other: Plan) -> _Relation:
    """How a plan compares with one in which it embeds."""
    if len(other.steps) != len(plan.steps):
        return "more steps"
    return "same waits" if _waits(other) == _waits(plan) else "other waits"


def _waits(plan: Plan) -> list[Step]:
    return [step for step in plan.steps if isinstance(step, Wait)]

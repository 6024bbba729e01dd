"""The live runs of one shrink, and the counts of each plan.

The shrinker asks the `TrialLog` whether a plan breaks the promise. If earlier runs of the plan answer that, no run is made. Every run
counts for every later question. Example: a run that accepted a candidate is also one of the confirming runs, if that candidate becomes the
minimal plan. `shrink` interprets the answers. `speculation` begins runs before the shrinker asks for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from graphquake.harness.promises.verdict import VerdictKind
from graphquake.harness.spec.plan import Plan, Step, Wait
from graphquake.machines.plans.subplan import embeds
from graphquake.machines.shrinking.repeats import Repeated

# An invalid run is repeated at most this many times. Then the plan is set aside: it is not run any more. The second number is for a plan
# that has had valid runs: its steps can take effect, so the cause is probably noise.
REPEATS_MAX: Final = 2
REPEATS_OF_VALID_MAX: Final = 8
# If this many kept runs reject a plan, the failure rate is about .9. Then a plan that can break is rarely kept by chance.
RARE_ACCIDENTS: Final = 2


@dataclass(frozen=True, slots=True)
class Trial:
    """The answer of one live run of a plan to the question whether it showed a violation with the finding's signature.

    Attributes:
        kind: `broken` if the run showed such a violation, and no known case explains it. `invalid` if the verdict of the run is invalid.
            Otherwise `kept`.
        last_step: the index of the last step that had begun when that violation began, or -1 if this is not known.
        blame: for each step of the plan, a factor on its odds of having caused the violation (1 is neutral). Empty if this is not known.
        used: true if an earlier run had used the graph.
    """

    kind: VerdictKind
    last_step: int = -1
    blame: tuple[float, ...] = ()
    used: bool = False


@dataclass(frozen=True, slots=True)
class Tried:
    """One live run.

    Attributes:
        plan: the plan that was tried.
        trial: the answer of the run.
        reason: the reason for the run, in words.
        ran: the plan that was run. It differs from `plan` if the run repeated the plan.
    """

    plan: Plan
    trial: Trial
    reason: str
    ran: Plan


@dataclass(slots=True)
class Count:
    """How many trials of a plan broke the promise, and how many kept it. Invalid runs do not count.

    A trial is a whole run of the plan, or one repetition in a run that repeats the plan (see `repeats`).

    Attributes:
        broke: the number of broken runs on fresh graphs.
        kept: the number of kept runs on fresh graphs.
        used_broke: the number of broken runs on used graphs.
        used_kept: the number of kept runs on used graphs.
        first_broke: the number of broken first repetitions on fresh graphs.
        first_kept: the number of kept first repetitions on fresh graphs.
        later_broke: the number of all other broken repetitions.
        later_kept: the number of all other kept repetitions.
    """

    broke: int = 0
    kept: int = 0
    used_broke: int = 0
    used_kept: int = 0
    first_broke: int = 0
    first_kept: int = 0
    later_broke: int = 0
    later_kept: int = 0

    @property
    def runs(self) -> int:
        """The number of broken and kept runs on fresh graphs."""
        return self.broke + self.kept

    @property
    def fresh_broke(self) -> int:
        """The number of broken trials on fresh graphs."""
        return self.broke + self.first_broke

    @property
    def fresh_kept(self) -> int:
        """The number of kept trials on fresh graphs."""
        return self.kept + self.first_kept

    @property
    def repeated_broke(self) -> int:
        """The number of broken repetitions."""
        return self.first_broke + self.later_broke

    @property
    def repeated_kept(self) -> int:
        """The number of kept repetitions."""
        return self.first_kept + self.later_kept

    @property
    def ever_broke(self) -> int:
        """The number of broken trials on fresh and used graphs."""
        return self.broke + self.used_broke + self.repeated_broke

    @property
    def ever_kept(self) -> int:
        """The number of kept trials on fresh and used graphs."""
        return self.kept + self.used_kept + self.repeated_kept

    @property
    def against(self) -> int:
        """The number of kept trials that speak against a plan.

        If a later repetition broke, an earlier repetition may be the reason. Then only first repetitions and whole runs tell anything.
        """
        later_kept = 0 if self.later_broke else self.later_kept
        return self.kept + self.used_kept + self.first_kept + later_kept

    @property
    def believed_broke(self) -> int:
        """The number of broken trials, without later repetitions."""
        return self.broke + self.used_broke + self.first_broke

    def add(self, trial: Trial) -> None:
        """Count a broken or kept run."""
        broke = trial.kind == "broken"
        if trial.used:
            self.used_broke += broke
            self.used_kept += not broke
        else:
            self.broke += broke
            self.kept += not broke

    def add_repeated(self, trial: Trial, repeated: Repeated) -> None:
        """Count the repetitions of a broken or kept run that repeated the plan.

        If it is not known in which repetition the run broke, it counts as a later one, and nothing is known about the others.
        """
        broke = trial.kind == "broken"
        if broke and trial.last_step < 0:
            self.later_broke += 1
            return
        kept = repeated.place(trial.last_step)[0] if broke else repeated.times
        is_first = broke and not kept
        if trial.used:
            self.later_broke += broke
            self.later_kept += kept
            return
        self.first_broke += is_first
        self.first_kept += kept > 0
        self.later_broke += broke and not is_first
        self.later_kept += max(0, kept - 1)


# Makes one live run of a plan.
RunPlan = Callable[[Plan], Trial]
# Called before a live run with its reason, its plan, and the probability that the run breaks the promise.
OnTrial = Callable[[str, Plan, float], None]


@dataclass(slots=True)
class TrialLog:
    """The live runs of one shrink.

    Attributes:
        run: makes one live run on a fresh graph.
        on_trial: called before each live run.
        reuse: makes one live run on a used graph if there is one, or None if every run needs a fresh graph.
        all: every live run, in order.
        repeat: repeats a plan so many times in one run, or returns None if the plan can't be repeated. None if no plan may be.
        times: how often a candidate is repeated in one run, at the present failure rate.
        later_broke: true if a later repetition of a plan has broken. Until then, it is not known that later repetitions can break.
        trusts_later: true if a broken later repetition accepts a plan. It is false as soon as such a plan did not break on fresh graphs.
        doubted: plans that a broken later repetition does not accept.
        aside: plans that are not run any more, because a run was invalid, and so were all repeats of it.
        eroded: plans that were given up, because they break too seldom, or only on used graphs. They count as plans that do not break.
    """

    run: RunPlan
    on_trial: OnTrial | None = None
    reuse: RunPlan | None = None
    repeat: Callable[[Plan, int], Repeated | None] | None = None
    times: Callable[[], int] = lambda: 1
    later_broke: bool = False
    trusts_later: bool = True
    doubted: set[Plan] = field(default_factory=set)
    all: list[Tried] = field(default_factory=list)
    aside: set[Plan] = field(default_factory=set)
    eroded: set[Plan] = field(default_factory=set)
    _counts: dict[Plan, Count] = field(default_factory=dict)
    _last: dict[Plan, Trial] = field(default_factory=dict)
    _relations: dict[Plan, list[_Relation | None]] = field(default_factory=dict)

    def count(self, plan: Plan) -> Count:
        """The counts of a plan."""
        return self._counts.setdefault(plan, Count())

    def add_earlier(self, plan: Plan, earlier: Count, broken: Trial) -> None:
        """Add the counts of earlier runs of a plan on fresh graphs. If any of them broke the promise, `broken` is such a trial."""
        count = self.count(plan)
        count.broke += earlier.broke
        count.kept += earlier.kept
        if earlier.broke:
            self._last[plan] = broken

    def counts(self) -> list[tuple[Plan, Count]]:
        """The plans with at least one broken or kept run, with their counts."""
        return [
            (plan, count)
            for plan, count in self._counts.items()
            if count.ever_broke + count.ever_kept
        ]

    def has_broken(self, plan: Plan) -> bool:
        """True if a run of a plan broke the promise, and the plan is taken for the reason."""
        return self._is_proof(plan, self.count(plan))

    def _is_proof(self, plan: Plan, count: Count) -> bool:
        later = 0 if self.doubts(plan) else count.later_broke
        return count.believed_broke + later > 0

    def doubts(self, plan: Plan) -> bool:
        """True if a broken later repetition does not prove that a plan breaks."""
        return not self.trusts_later or plan in self.doubted

    def trials(self, plan: Plan, wanted: int) -> int:
        """The number of trials that the next run of a candidate makes, if `wanted` trials are wanted."""
        if self.times() == 1 or (self.count(plan).later_broke and self.doubts(plan)):
            return 1
        return wanted

    def shown(self, plan: Plan) -> Trial:
        """The latest broken run of a plan. It is an error to ask for a plan without one."""
        return self._last[plan]

    def once_more(
        self, plan: Plan, reason: str, likely: float, *, fresh: bool = True, trials: int = 1
    ) -> Trial:
        """Make one more live run of a plan. An invalid run is repeated. After too many invalid runs, the plan is set aside.

        Args:
            plan: the plan.
            reason: the reason for the run, in words.
            likely: a rough probability that the run breaks the promise. Only speculation uses it.
            fresh: if true, the run gets a fresh graph. The repeat of an invalid run always gets one.
            trials: the number of trials of the plan that the run makes if the plan can be repeated.

        Returns:
            The trial. Its `last_step` is a step of `plan`, also if the run repeated the plan.

        Raises:
            BudgetSpent: if no run is left.
        """
        run = self.run if fresh or self.reuse is None else self.reuse
        count = self.count(plan)
        was_valid = count.ever_broke + count.ever_kept > 0
        many = self.repeat(plan, trials) if trials > 1 and self.repeat is not None else None
        ran = plan if many is None else many.plan
        if many is not None:
            likely = 1 - (1 - likely) ** many.times
        for _ in range(1 + (REPEATS_OF_VALID_MAX if was_valid else REPEATS_MAX)):
            if self.on_trial is not None:
                self.on_trial(reason, plan, likely)
            trial = run(ran)
            run = self.run
            self.all.append(Tried(plan, trial, reason, ran))
            if trial.kind != "invalid":
                break
        else:
            self.aside.add(plan)
            return trial
        if many is None:
            count.add(trial)
        else:
            trial = self._add_repeated(count, trial, many)
        if trial.kind == "broken":
            self._last[plan] = trial
        return trial

    def _add_repeated(self, count: Count, trial: Trial, many: Repeated) -> Trial:
        count.add_repeated(trial, many)
        if trial.kind != "broken":
            return trial
        repetition, place = many.place(trial.last_step)
        self.later_broke |= repetition > 0
        return replace(trial, last_step=place if trial.last_step >= 0 else -1, blame=())

    def breaks(
        self, plan: Plan, passes: int, reason: str, likely: float, *, of: int | None = None
    ) -> bool:
        """Run a plan until one run breaks the promise (true), or until `passes` runs have kept it (false).

        Earlier runs count, also those of other plans (see `kept_with_more`).

        A plan that was set aside, or given up (`eroded`), counts as a plan that does not break.

        Args:
            plan: the plan.
            passes: the number of kept runs after which the answer is false.
            reason: the reason for the runs, in words.
            likely: a rough probability that a run breaks the promise. Only speculation uses it.
            of: the number of kept runs that finally reject the plan, if the caller asks again with a higher `passes`. If None, `passes`.
        """
        of = of or passes
        while not self.is_set_aside(plan):
            if self.has_broken(plan):
                return True
            kept, agreed = self.kept_with_more(plan, of)
            if kept >= passes and (agreed or passes < of):
                return False
            trials = self.trials(plan, of - kept)
            self.once_more(
                plan, reason, likely, fresh=not agreed and kept + trials >= of, trials=trials
            )
        return False

    def kept_with_more(self, plan: Plan, passes: int) -> tuple[int, bool]:
        """Count the kept runs that speak against a plan: those of the plan itself, and those of plans in which it embeds.

        Those other plans do everything that the plan does, and more. They count only if none of their runs broke the promise.

        | the kept runs are of a plan with | they count | because |
        |---|---|---|
        | the same steps, as much waiting, as much load or more | all of them | what holds under more load holds under less |
        | the same steps, longer waits | up to `passes - 1` | a longer wait may hide the failure |
        | more steps | as one run, and only if `passes` is 2 | an additional step may hide the failure; see below |

        The last two rows together never count more than `passes - 1`, so at least one run of the plan itself is made. A plan with more
        steps counts only where the failure rate is about .9 (two kept runs reject). At lower rates it may have been kept by chance.
        That chance would also be the only reason why the additional step is still in the minimal plan.

        Example: three kept runs reject `kill decode 0; wait 0.50 s`. The same plan with 2 s was kept in five runs. They count as two, so
        one run of the plan itself decides. A kept run of `kill decode 0; wait 0.50 s; burst 5 over 0.00 s` does not count.

        Args:
            plan: the plan.
            passes: the number of kept runs that reject the plan.

        Returns:
            The count, and true if at least one of these runs had a fresh graph. Runs on used graphs alone do not reject a plan.
        """
        kept: Counter[_Relation] = Counter()
        fresh = 0
        # The same question comes back after each run, so relations are computed once. `_counts` only grows, in the order of its items.
        relations = self._relations.setdefault(plan, [])
        relations += (_relation(plan, other) for other in list(self._counts)[len(relations) :])
        for relation, (other, count) in zip(relations, self._counts.items(), strict=True):
            if relation is not None and count.against and not self._is_proof(other, count):
                fresh += count.fresh_kept
                kept[relation] += count.against
        indirect = kept["other waits"]
        if passes == RARE_ACCIDENTS and kept["more steps"]:
            indirect += 1
        return kept["same waits"] + min(indirect, max(0, passes - 1)), fresh > 0

    def is_set_aside(self, plan: Plan) -> bool:
        """True if no more runs of a plan are made: its runs were invalid, or it was given up (`eroded`)."""
        return plan in self.aside or plan in self.eroded


_Relation: TypeAlias = Literal["same waits", "other waits", "more steps"]


def _relation(plan: Plan, other: Plan) -> _Relation | None:
    """Say how `other`, in which `plan` embeds, differs from `plan`. Return None if `plan` does not embed in it."""
    if not embeds(plan, other):
        return None
    if len(other.steps) != len(plan.steps):
        return "more steps"
    return "same waits" if _waits(other) == _waits(plan) else "other waits"


def _waits(plan: Plan) -> list[Step]:
    return [step for step in plan.steps if isinstance(step, Wait)]

"""Ways to shrink a failing plan, for the benchmark to compare: ddmin, ProbDD, and our shrinker.

A `Way` gets a bug, a plan that failed and a graph to run plans on. It returns its final plan and the cost. A new way is a new class in
`bench_shrink.WAYS`. It reports its own seconds, because its runs may go side by side. Plain Hypothesis is another way, in `interactive`.

ddmin (Zeller and Hildebrandt, TSE 2002) and ProbDD (Wang et al., FSE 2021) are implemented as they were published. They make one run for
each candidate and believe it. They do not lower numbers, and do not confirm. Both shrink the list of steps. The model leaves out steps that
are
not possible any more without others. No plan is run twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar, Final, Protocol

from graphquake.harness.spec.feasible import mend
from graphquake.harness.spec.plan import Plan
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.shrinking.shrink import shrink
from graphquake.machines.shrinking.speculation import shrink_ahead
from graphquake.machines.shrinking.trials import Trial

from bench.costs import Costs
from support.simulated import REPEATS, SPEC, Shape, Simulated, broken
from support.virtual import Begun, VirtualRunner

# A way ends with this word if its plan is the finding. Any other word means another end.
FINDING: Final = "finding"
# The way had no failure to shrink: the plans that it drew did not show the bug.
NOT_FOUND: Final = "not found"
UNCONFIRMED: Final = "unconfirmed"
UNBOUNDED: Final = 1_000_000
# The initial probability that a step is needed, as ProbDD was published.
UNIFORM: Final = 0.1
# A step that is needed with more than this probability is not tried any more.
CERTAIN: Final = 1 - 1e-9


@dataclass(frozen=True, slots=True)
class Ran:
    """One live run after the first failure.

    Attributes:
        evidence: whether it was made for the report alone: controls, single removals, other replicas.
        ran: the plan that was run, if it differs from `plan`: the plan may have been repeated.
    """

    plan: Plan
    trial: Trial
    evidence: bool = False
    ran: Plan | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a shrink.

    Attributes:
        plan: the plan that it hands back.
        says: `FINDING`, or another word.
        runs: all live runs after the first failure, in order.
        live_s: the seconds of all of them.
        sought_s: the seconds of those that were not only evidence.
    """

    plan: Plan
    says: str
    runs: tuple[Ran, ...]
    live_s: float
    sought_s: float


class Way(Protocol):
    """A shrinking algorithm under comparison. It may make at most `runs_max` live runs."""

    runs_max: ClassVar[int]

    def __call__(self, shape: Shape, plan: Plan, graph: Simulated) -> Result:
        """Shrink a plan that failed on a graph."""
        ...


def one_by_one(
    shape: Shape, costs: Costs, plan: Plan, says: str, runs: Iterable[Ran], cut_s: float = 0.0
) -> Result:
    """Return the result of a way that makes one run after the other."""
    ran = tuple(runs)
    each_s = [costs.run_s(shape, one.ran or one.plan, one.trial) for one in ran]
    sought_s = sum(s for one, s in zip(ran, each_s, strict=True) if not one.evidence)
    return Result(plan, says, ran, sum(each_s) + cut_s, sought_s + cut_s)


# ------------------------------------------------------------------------------------------------ one run a candidate


@dataclass(slots=True)
class _Steps:
    """A failing plan as a list of places, and the results of its parts so far."""

    plan: Plan
    graph: Simulated
    ran: list[Ran] = field(default_factory=list)
    _seen: dict[Plan, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._seen[self.plan] = True

    def part(self, places: Iterable[int]) -> Plan:
        """Return the plan with the steps at some places only."""
        return replace(self.plan, steps=tuple(self.plan.steps[place] for place in places))

    def possible(self, places: Iterable[int]) -> list[int]:
        """Return those of some places whose steps are possible without the others."""
        kept: list[int] = []
        for place in sorted(places):
            if len(mend(SPEC, self.part([*kept, place])).steps) > len(kept):
                kept.append(place)
        return kept

    def fails(self, places: list[int]) -> bool:
        """Return whether one run of a part breaks the promise. The empty plan does not."""
        if not places:
            return False
        plan = self.part(places)
        if plan not in self._seen:
            trial = self.graph(plan)
            self.ran.append(Ran(plan, trial))
            self._seen[plan] = trial.kind == "broken"
        return self._seen[plan]


def _ddmin(steps: _Steps) -> list[int]:
    """Try subsets, then their complements, then finer ones."""
    now, pieces = list(range(len(steps.plan.steps))), 2
    while len(now) >= 2:
        cuts = [round(len(now) * number / pieces) for number in range(pieces + 1)]
        subsets = [now[a:b] for a, b in pairwise(cuts)]
        rests = [[place for place in now if place not in subset] for subset in subsets]
        if (smaller := _first_failing(steps, now, subsets)) is not None:
            now, pieces = smaller, 2
        elif (smaller := _first_failing(steps, now, rests)) is not None:
            now, pieces = smaller, max(pieces - 1, 2)
        elif pieces < len(now):
            pieces = min(len(now), 2 * pieces)
        else:
            break
        pieces = min(pieces, max(2, len(now)))
    return now


def _first_failing(steps: _Steps, now: list[int], parts: list[list[int]]) -> list[int] | None:
    for part in parts:
        possible = steps.possible(part)
        if len(possible) < len(now) and steps.fails(possible):
            return possible
    return None


def _prob_dd(steps: _Steps) -> list[int]:
    """Leave out the most promising steps, and learn from each answer."""
    now = list(range(len(steps.plan.steps)))
    needed = dict.fromkeys(now, UNIFORM)
    while open_places := [place for place in now if needed[place] < CERTAIN]:
        removal = _most_promising(open_places, needed)
        rest = steps.possible(place for place in now if place not in removal)
        if steps.fails(rest):
            now = rest
            continue
        # Dependent steps were removed too. So the answer is about the whole removal.
        surprise = 1 - math.prod(1 - needed[place] for place in removal)
        for place in removal:
            needed[place] = min(1.0, needed[place] / surprise)
    return now


def _most_promising(places: list[int], needed: dict[int, float]) -> list[int]:
    """Return the steps that are least likely to be needed: as many as maximise the expected number of removed steps."""
    order = sorted(places, key=lambda place: (needed[place], place))
    gains = [
        size * math.prod(1 - needed[place] for place in order[:size])
        for size in range(1, len(order) + 1)
    ]
    return order[: gains.index(max(gains)) + 1]


@dataclass(frozen=True, slots=True)
class _OneRunEach:
    """A way that believes the first run of each candidate."""

    runs_max: ClassVar[int] = UNBOUNDED
    costs: Costs

    def left(self, steps: _Steps) -> list[int]:
        """Return the places of the final steps."""
        raise NotImplementedError

    def __call__(self, shape: Shape, plan: Plan, graph: Simulated) -> Result:
        """Shrink and take the final steps without confirmation."""
        steps = _Steps(plan, graph)
        end = steps.part(self.left(steps))
        return one_by_one(shape, self.costs, end, FINDING, steps.ran)


class Ddmin(_OneRunEach):
    """Zeller's ddmin over the steps."""

    def left(self, steps: _Steps) -> list[int]:
        """See `_OneRunEach.left`."""
        return _ddmin(steps)


class ProbDD(_OneRunEach):
    """ProbDD over the steps, with uniform priors."""

    def left(self, steps: _Steps) -> list[int]:
        """See `_OneRunEach.left`."""
        return _prob_dd(steps)


# ------------------------------------------------------------------------------------------------------------- ours


@dataclass(frozen=True, slots=True)
class Ours:
    """Our shrinker, `graphquake.machines.shrinking.shrink`, one run after the other.

    If a budget of live runs ends it, the best plan so far is the result, as in a session. A failure that it never saw again is unconfirmed.
    """

    runs_max: ClassVar[int] = 120
    evidence: ClassVar[tuple[str, ...]] = ("control", "is it minimal", "with other replicas")
    costs: Costs

    def __call__(self, shape: Shape, plan: Plan, graph: Simulated) -> Result:
        """Shrink and collect all the evidence that a case needs."""
        one = shrink(SPEC, plan, broken(shape, plan), graph, repeats=REPEATS)
        runs = [
            Ran(t.plan, t.trial, t.reason.startswith(self.evidence), t.ran) for t in one.journal
        ]
        says = FINDING if one.confirmed else UNCONFIRMED
        return one_by_one(shape, self.costs, one.plan, says, runs)


@dataclass(frozen=True, slots=True)
class _Slotted:
    """Our shrinker with candidates side by side. Seconds are wall time. Speculative runs whose result was never used do not count."""

    runs_max: ClassVar[int] = UNBOUNDED
    slots: ClassVar[int]
    costs: Costs

    def __call__(self, shape: Shape, plan: Plan, graph: Simulated) -> Result:
        """Shrink and collect all the evidence that a case needs."""
        runner = _Timed(graph, lambda ran, trial: self.costs.run_s(shape, ran, trial), self.slots)
        one = shrink_ahead(
            lambda run, on_trial, reuse: shrink(
                SPEC,
                plan,
                broken(shape, plan),
                run,
                on_trial=on_trial,
                reuse=reuse,
                repeats=REPEATS,
            ),
            runner,
        )
        runs = [
            Ran(t.plan, t.trial, t.reason.startswith(Ours.evidence), t.ran) for t in one.journal
        ]
        sought = [s for ran, s in zip(runs, runner.ends_s, strict=True) if not ran.evidence]
        says = FINDING if one.confirmed else UNCONFIRMED
        return Result(one.plan, says, tuple(runs), runner.now_s, max(sought, default=0.0))


class TwoSlots(_Slotted):
    """Two graphs side by side."""

    slots = 2


class FourSlots(_Slotted):
    """Four graphs side by side."""

    slots = 4


@dataclass(slots=True)
class _Timed(VirtualRunner):
    """A virtual runner that notes when each result was taken, and ends at the run limit of `Ours`."""

    ends_s: list[float] = field(default_factory=list)

    def result(self, run: Begun) -> Trial:
        """Return a run's result and note the time."""
        if len(self.ends_s) >= Ours.runs_max:
            raise BudgetSpent
        trial = VirtualRunner.result(self, run)
        self.ends_s.append(self.now_s)
        return trial

"""What a shrink hands back: the minimal plan, and what it rests on.

Every count is there, also where the budget ended it early: what was not tried is told as such, never left out. How it reads in a report is
left to `report`, which steps are tried in which order to `shrink`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, Step
from graphquake.machines.shrinking.parameters import numbers
from graphquake.machines.shrinking.probdd import suspects
from graphquake.machines.shrinking.trials import TrialLog, Tried


@dataclass(frozen=True, slots=True)
class Needed:
    """What was seen without one step of the minimal plan.

    Attributes:
        step: the step.
        broke, kept: runs of the plan without it. If some broke, they were too few of them to stand for the finding.
        untested: every run proved nothing, or there was none.
    """

    step: Step
    broke: int
    kept: int
    untested: bool

    @property
    def text(self) -> str:
        """What was seen, in words."""
        if self.untested:
            return "untested"
        if self.broke:
            return f"broken in only {self.broke} of {self.broke + self.kept} runs"
        return f"kept in {self.kept} of {self.kept} runs"


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where the number of a step begins to matter.

    Attributes:
        step: the step of the minimal plan; None for how long the run stays on.
        name: the field that holds the number.
        value: what it is in the minimal plan, about the least that breaks it.
        below: the highest lower value that was run and did not stand for the finding.
        broke, kept: runs with that one.
    """

    step: Step | None
    name: str
    value: float
    below: float
    broke: int
    kept: int

    @property
    def text(self) -> str:
        """What was seen, in words."""
        runs = f"{self.kept} of {self.broke + self.kept} runs"
        return f"{self.name} {self.value:g} breaks it, {self.below:g} was kept in {runs}"


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The minimal plan, and what it rests on.

    Attributes:
        plan: the smallest plan that was seen to fail and stands for what was found; the original one if it was never seen again.
        broke, runs: how many of how many fresh runs of just this plan broke the promise.
        control_broke, control_runs: the same of the plan without its faults.
        needed: for each step of the plan, what was seen without it.
        thresholds: for each number that matters, where it begins to.
        any_replica: whether it also fails with other replicas of the same roles; None if that was not tried.
        live_runs: all that it cost, invalid ones included.
        complete: everything was tried; False if the budget ended it.
        confirmed: it was seen again in a fresh run.
        journal: every live run, in order.
    """

    plan: Plan
    broke: int
    runs: int
    control_broke: int
    control_runs: int
    needed: tuple[Needed, ...]
    thresholds: tuple[Threshold, ...]
    any_replica: bool | None
    live_runs: int
    complete: bool
    confirmed: bool
    journal: tuple[Tried, ...]

    def needed_text(self) -> dict[str, str]:
        """What was seen without each step: the step's text -> words."""
        seen: Counter[str] = Counter()
        texts = {}
        for number, needed in enumerate(self.needed, start=1):
            name = str(needed.step)
            seen[name] += 1
            texts[name if seen[name] == 1 else f"{name} (step {number})"] = needed.text
        return texts

    def numbers_text(self) -> dict[str, str]:
        """Where each number begins to matter: the step's text -> words."""
        texts: dict[str, str] = {}
        for one in self.thresholds:
            name = "stay" if one.step is None else str(one.step)
            texts[name] = f"{texts[name]}; {one.text}" if name in texts else one.text
        return texts

    def controls_text(self) -> str:
        """What was seen without the faults, in words; empty if that was not tried."""
        if not self.plan.faults and self.runs:
            return "the plan has no fault in it: load alone breaks it"
        if not self.control_runs:
            return ""
        if self.control_broke:
            return f"broken in {self.control_broke} of {self.control_runs} runs without the faults: load alone can break it"
        return f"kept in {self.control_runs} of {self.control_runs} runs without the faults"


def thresholds(minimal: Plan, log: TrialLog) -> Iterator[Threshold]:
    """For each number of which a lower value was kept: the highest of those."""
    kinds = [type(step) for step in minimal.steps]
    alike = [
        (plan, count)
        for plan, count in log.counts()
        if count.ever_kept and [type(step) for step in plan.steps] == kinds
    ]
    for number in numbers(minimal):
        value = number.of(minimal)
        lower = [
            (number.of(plan), count)
            for plan, count in alike
            if number.of(plan) < value and number.put(plan, value) == minimal
        ]
        if lower:
            below, count = max(lower, key=lambda one: one[0])
            step = minimal.steps[number.place] if number.place >= 0 else None
            yield Threshold(step, number.name, value, below, count.ever_broke, count.ever_kept)


def without_each(spec: GraphSpec, minimal: Plan, log: TrialLog) -> Iterator[Needed]:
    """What was seen without each step of a plan, one at a time."""
    whole = suspects(spec, minimal)
    for place, step in enumerate(minimal.steps):
        plan = whole.without(whole.mended(frozenset([place]))).plan
        count = log.count(plan)
        broke, kept = count.ever_broke, count.ever_kept
        yield Needed(step, broke, kept, untested=broke + kept == 0)

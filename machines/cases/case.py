"""A case: a minimal plan that breaks a promise, and the evidence for it.

A case excuses a violation, never a plan (`Case.explains`). A plan that contains a known case runs all the same, and everything else that it
shows is a finding.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, Literal, TypeAlias, get_args

from graphquake.harness.history.events import StepDone
from graphquake.harness.history.history import History
from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Violation
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.harness.spec.replica import Replica
from graphquake.machines.cases.conditions import Value, under
from graphquake.machines.plans.subplan import last_act
from graphquake.machines.shrinking.result import Control, Needed, Threshold

Sign: TypeAlias = Literal["≥", "≤"]
Status: TypeAlias = Literal["open", "known", "fixed", "unconfirmed", "unshrunk"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
# Only cases with these statuses excuse violations. A fixed case that comes back is a finding again. A case that was never confirmed does
# not explain any violation.
EXCUSING: Final[tuple[Status, ...]] = ("open", "known", "unshrunk")
# A violation of the same kind may come somewhat later than in the runs that were recorded.
REACH_FACTOR: Final = 1.25
REACH_SLACK_S: Final = 0.5
# A case with k replicas of a role in a plan with n of them has n! / (n - k)! relabellings: 5,040 for 7 of 7. Minimal plans
# with more than three replicas of one role have not been seen, and an embedding takes 20 µs.
RELABELLINGS_MAX: Final = 5040


@dataclass(frozen=True, slots=True)
class Observed:
    """One series of fresh runs of a case's plan.

    Attributes:
        on: the day, ISO 8601.
        versions: name -> version of the software that ran.
        host: the machine, in words.
        broke: how many of the runs broke the promise with the case's signature.
        runs: how many runs were valid.
        invalid: how many runs were invalid. They are not among `runs`.
    """

    on: str
    versions: Mapping[str, str]
    host: str
    broke: int
    runs: int
    invalid: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact that separates the broken runs of a plan from its kept runs.

    Attributes:
        fact: the fact about a run, in words, e.g. `requests in flight at "kill decode 0" (step 1)`.
        sign: whether the broken runs lie above or below the edge.
        edge: the value of the fact in the broken run that is nearest to the kept ones.
        broke: how many runs broke the promise, all of them on this side of the edge.
        kept: how many runs kept it, none of them on this side.
    """

    fact: str
    sign: Sign
    edge: float
    broke: int
    kept: int


@dataclass(frozen=True, slots=True)
class ShrinkCost:
    """The cost of finding a case and shrinking its plan.

    Attributes:
        steps: the number of steps of the plan that was drawn.
        plainer: the minimal plan is not a part of the drawn one, but a plainer plan that shows the same.
        live_runs: the live runs that the shrink made, invalid ones included.
        live_s: the seconds that these runs took.
        unneeded_runs: runs that were begun speculatively and not needed.
        gpu_s: GPU-seconds of these runs.
        round: the search's round of drawing.
        draw: the number of plans that had been drawn.
    """

    steps: int = 0
    plainer: bool = False
    live_runs: int = 0
    live_s: float = 0.0
    unneeded_runs: int = 0
    gpu_s: float = 0.0
    round: int = 0
    draw: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """A minimal plan that breaks a promise, and the evidence for it.

    Attributes:
        id: six hex digits that name it, see `case_id`.
        title: its headline.
        status: whether it is open, known, fixed, never confirmed, or not shrunk to the end.
        graph: name, shape and digest of the graph.
        signature: of the violation that was found.
        plan: the minimal plan.
        seen: the observation, in a sentence.
        why: why a known case is known, e.g. a link to a bug report.
        also: other signatures that the minimal plan itself showed in its own runs.
        reach_s: how long after the last act of the plan its violations began at most, with a margin, in seconds.
        bounds, load: the graph's bounds and load under which it was seen. A replay uses them.
        any_replica: whether it holds for other replicas of the same roles, or None if that was not tried.
        needed: the runs without each step of the plan.
        numbers: where each number of the plan begins to matter.
        differs: if the plan does not always break it, what separated the broken runs from the kept ones.
        control: the runs without the plan's faults, or None if that was not tried.
        cost: the cost of the shrink.
        observed: each series of runs, the oldest first.
    """

    id: str
    title: str
    status: Status
    graph: Mapping[str, str]
    signature: Signature
    plan: Plan
    seen: str
    why: str = ""
    also: tuple[Signature, ...] = ()
    reach_s: float = 0.0
    bounds: Mapping[str, Value] = field(default_factory=dict)
    load: Mapping[str, Value] = field(default_factory=dict)
    any_replica: bool | None = None
    needed: tuple[Needed, ...] = ()
    numbers: tuple[Threshold, ...] = ()
    differs: tuple[Difference, ...] = ()
    control: Control | None = None
    cost: ShrinkCost = field(default_factory=ShrinkCost)
    observed: tuple[Observed, ...] = ()

    @property
    def promise(self) -> str:
        """The name of the promise that it breaks."""
        return self.signature.promise

    @property
    def rate(self) -> float:
        """The share of runs that broke it, the last time that any did, or 1 if it was never counted."""
        last = next((o for o in reversed(self.observed) if o.broke), None)
        return last.broke / last.runs if last else 1.0

    def is_of(self, spec: GraphSpec) -> bool:
        """True if it is a case of that graph. Only the name counts, so a case survives changes of the graph file."""
        return self.graph["name"] == spec.name

    def plans(self, within: Plan) -> Iterator[Plan]:
        """The plan. If the case holds for any replica, also the plan with the replicas that another plan names.

        Args:
            within: the plan in which to look for the case. The case can't be met there at replicas that this plan does not name.
        """
        yield self.plan
        if self.any_replica:
            yield from relabellings(self.plan, within)

    def names(self, signature: Signature) -> bool:
        """True if a signature is the case's own, or another one that its minimal plan shows."""
        return signature in (self.signature, *self.also)

    def explains(self, violation: Violation, history: History) -> bool:
        """True if a violation is this case again.

        It has one of the case's signatures, and begins within the reach after the last act of an embedding of the case's plan.
        """
        if not self.names(violation.signature):
            return False
        numbers = _last_acts(self.plan, history.plan, any_replica=bool(self.any_replica))
        return any(
            0 <= violation.at_s - step.begun_s <= self.reach_s
            for step in history.of(StepDone)
            if step.number in numbers
        )

    def as_in(self, spec: GraphSpec) -> GraphSpec:
        """The graph under the case's own bounds and load."""
        return under(spec, self.bounds, self.load)


@lru_cache(maxsize=4096)
def _last_acts(plan: Plan, whole: Plan, *, any_replica: bool) -> frozenset[int]:
    """The numbers of the steps of a plan with which an embedding of a case's plan did its last act.

    There may be one for each relabelling. Every violation of every run asks this of every case, so the answers are cached.
    """
    plans = [plan, *(relabellings(plan, whole) if any_replica else ())]
    found = (last_act(one, whole) for one in plans)
    return frozenset(number for number in found if number is not None)


def relabellings(plan: Plan, within: Plan) -> Iterator[Plan]:
    """The same plan with other replicas of the same roles, among those that another plan names. At most `RELABELLINGS_MAX` of them."""
    named, there = _replicas_named(plan), _replicas_named(within)
    pools = [
        [(role, chosen) for chosen in itertools.permutations(there.get(role, []), len(used))]
        for role, used in named.items()
    ]
    for product in itertools.islice(itertools.product(*pools), RELABELLINGS_MAX):
        to = {
            Replica(role, old): Replica(role, new)
            for role, chosen in product
            for old, new in zip(named[role], chosen, strict=True)
        }
        yield replace(plan, steps=tuple(step.moved(to.__getitem__) for step in plan.steps))


def _replicas_named(plan: Plan) -> dict[str, list[int]]:
    """For each role, the indices of the replicas that a plan aims at, in ascending order."""
    named: dict[str, set[int]] = {}
    for step in plan.steps:
        for replica in step.aims:
            named.setdefault(replica.role, set()).add(replica.index)
    return {role: sorted(used) for role, used in named.items()}


def acted_s(plan: Plan, history: History) -> float | None:
    """The time in a run at which the earliest embedding of a plan began its last act, in seconds, or None if it does not embed.

    The begin counts, not the end: a kill takes effect as soon as it begins, and the plan also caused the failures during its last wait.
    """
    number = last_act(plan, history.plan)
    return next((step.begun_s for step in history.of(StepDone) if step.number == number), None)


def case_id(graph: str, promise: str, plan: Plan) -> str:
    """Six hex digits that name a case."""
    return hashlib.sha256(f"{graph}\n{promise}\n{plan}".encode()).hexdigest()[:6]


def graph_digest(spec: GraphSpec) -> str:
    """Six hex digits that name a graph file's contents."""
    text = json.dumps(spec.document, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]

"""A case: a minimal plan that breaks a promise, and the evidence for it.

A case excuses a violation, never a plan (see `Case.explains`). A plan that contains the plan of a known case runs all the same. Any
violation of that run that no case explains can become a finding.
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
from graphquake.harness.spec.plan import Plan, Step
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.own.own_table import OwnStep
from graphquake.machines.cases.conditions import Value, under
from graphquake.machines.plans.subplan import last_act
from graphquake.machines.shrinking.result import Control, Needed, Threshold

Sign: TypeAlias = Literal["≥", "≤"]
Status: TypeAlias = Literal["open", "known", "fixed", "unconfirmed", "unshrunk"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
# Only cases with these statuses excuse violations. A fixed case that comes back is a finding again. A case that was never confirmed does
# not explain any violation.
EXCUSING: Final[tuple[Status, ...]] = ("open", "known", "unshrunk")
# In later runs, a violation may begin somewhat later than in the runs that gave the reach of its case. So the reach has a margin.
REACH_FACTOR: Final = 1.25
REACH_SLACK_S: Final = 0.5
# If a case names k replicas of a role and a plan names n of them, there are n! / (n - k)! relabellings: 5,040 if both name 7. No minimal
# plan with more than three replicas of one role has been seen. A test whether one relabelling embeds takes 20 µs.
RELABELLINGS_MAX: Final = 5040


@dataclass(frozen=True, slots=True)
class Observed:
    """One series of fresh runs of a case's plan.

    Attributes:
        on: the day of the runs, as an ISO 8601 date.
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
        sign: `≥` if all broken runs have the value of the edge or a higher one, `≤` if the value of the edge or a lower one.
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
        plainer: true if the minimal plan is not a part of the drawn plan, but a plainer plan that shows the same violation.
        live_runs: the live runs that the shrink made, invalid ones included.
        live_s: the sum of the durations of the live runs, in seconds.
        unneeded_runs: runs that were begun speculatively, and whose results were not needed.
        gpu_s: `live_s` times the number of GPUs of one run, in GPU-seconds.
        round: the round of the search in which the case was found, from 0.
        draw: one more than the number of plans that the search had drawn when the case was found.
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
        id: six hex digits that name the case, see `case_id`.
        title: the headline of the case.
        status: `open`, `known`, `fixed`, `unconfirmed` (no fresh run showed it again), or `unshrunk` (its shrink ended early).
        graph: name, shape and digest of the graph.
        signature: the signature of the violation that was found.
        plan: the minimal plan.
        seen: the observation, in a sentence.
        why: the reason why a user marked the case as known, e.g. a link to a bug report. Empty if there is none.
        also: other signatures that the minimal plan itself showed in its own runs.
        own_steps: the definitions of the user's own steps in the plan, by name. The file of the case is read with them.
        reach_s: the longest time from the last act of the plan to the start of a violation, with a margin, in seconds.
        bounds, load: the bounds and the load of the graph when the violation was seen. A replay uses them.
        any_replica: true if other replicas of the same roles break the promise too, or None if that was not tried.
        needed: for each step, how many runs of the plan without it broke and kept the promise.
        numbers: for each number of the plan that matters, the value from which on the promise breaks.
        differs: if the plan breaks the promise only in some runs, the facts that separate these runs from the kept ones.
        control: how many runs without the plan's faults broke and kept the promise, or None if there were none.
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
    own_steps: Mapping[str, OwnStep] = field(default_factory=dict)
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
        """The name of the promise that the plan breaks."""
        return self.signature.promise

    @property
    def rate(self) -> float:
        """The share of broken runs in the latest entry of `observed` that has one, or 1 if no entry has a broken run."""
        last = next((o for o in reversed(self.observed) if o.broke), None)
        return last.broke / last.runs if last else 1.0

    def is_of(self, spec: GraphSpec) -> bool:
        """True if this is a case of the graph. Only the graph's name is compared, so a case survives changes of the graph file."""
        return self.graph["name"] == spec.name

    def plans(self, within: Plan) -> Iterator[Plan]:
        """Yield the case's plan. If `any_replica` is true, also yield its relabellings.

        Args:
            within: the plan in which the caller looks for the case. A relabelling uses only replicas that this plan names.
        """
        yield self.plan
        if self.any_replica:
            yield from relabellings(self.plan, within)

    def names(self, signature: Signature) -> bool:
        """True if a signature is the case's own, or another one that its minimal plan shows."""
        return signature in (self.signature, *self.also)

    def explains(self, violation: Violation, history: History) -> bool:
        """True if a violation is this case again.

        The violation must have one of the case's signatures. The case's plan must embed in the plan of the history. The violation must
        begin at most `reach_s` after the last act of the embedding began. If that act lasts longer than in the case's plan, such as a
        longer stall, its failures may begin later by that much. A plan without any act explains failures at any time, if load
        alone has broken the promise in more than the run in which it was found.
        """
        if not self.names(violation.signature):
            return False
        plan = history.plan
        own = next((step for step in reversed(self.plan.steps) if not step.is_wait), None)
        if own is None:
            return any(one.broke for one in self.observed)
        numbers = _last_acts(self.plan, plan, any_replica=bool(self.any_replica))
        return any(
            0
            <= violation.at_s - done.begun_s
            <= self.reach_s + _longer_s(own, plan.steps[done.number])
            for done in history.of(StepDone)
            if done.number in numbers
        )

    def as_in(self, spec: GraphSpec) -> GraphSpec:
        """The graph under the case's own bounds and load."""
        return under(spec, self.bounds, self.load)


def _longer_s(own: Step, other: Step) -> float:
    """The seconds by which a step lasts longer than the step of a case that it stands for."""
    names = [knob.name for knob in own.knobs() if knob.is_time]
    longer_s = (float(getattr(other, name)) - float(getattr(own, name)) for name in names)
    return sum(max(0.0, one) for one in longer_s)


@lru_cache(maxsize=4096)
def _last_acts(plan: Plan, whole: Plan, *, any_replica: bool) -> frozenset[int]:
    """The numbers of the steps of `whole` that are the last act of an embedding of `plan`, the plan of a case.

    There may be one number for each relabelling. Every violation of every run is compared with every case, so the results are cached.
    """
    plans = [plan, *(relabellings(plan, whole) if any_replica else ())]
    found = (last_act(one, whole) for one in plans)
    return frozenset(number for number in found if number is not None)


def relabellings(plan: Plan, within: Plan) -> Iterator[Plan]:
    """Yield the plan with its replicas replaced by replicas of the same roles that `within` names. At most `RELABELLINGS_MAX` plans."""
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
    """For each role, the indices of the replicas that a plan names, in ascending order: its aims, and those whose events it waits for."""
    named: dict[str, set[int]] = {}

    def note(replica: Replica) -> Replica:
        named.setdefault(replica.role, set()).add(replica.index)
        return replica

    for step in plan.steps:
        step.moved(note)
    return {role: sorted(used) for role, used in named.items()}


def acted_s(plan: Plan, history: History) -> float | None:
    """The time in a run at which the last act of a plan began, in seconds, or None if the plan does not embed in the run's plan.

    If the plan embeds in several ways, the earliest embedding counts. The time is the start of the act, not its end: a kill takes effect
    as soon as it begins. A wait after the last act is not an act, so failures during that wait come after the act.
    """
    number = last_act(plan, history.plan)
    return next((step.begun_s for step in history.of(StepDone) if step.number == number), None)


def case_id(graph: str, promise: str, plan: Plan) -> str:
    """Six hex digits that name a case: a digest of the graph's name, the promise and the minimal plan."""
    return hashlib.sha256(f"{graph}\n{promise}\n{plan}".encode()).hexdigest()[:6]


def graph_digest(spec: GraphSpec) -> str:
    """Six hex digits that name a graph file's contents."""
    text = json.dumps(spec.document, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]

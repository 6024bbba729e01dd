"""Makes a finding: the case that is saved, and the runs that show it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graphquake.harness.history.host import Host
from graphquake.harness.promises.signature import SEPARATOR, Signature
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.case import Case, Observed, ShrinkCost, case_id, graph_digest
from graphquake.machines.cases.conditions import bounds_of, load_of
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.cases.wording import seen_text, title_of
from graphquake.machines.findings.sightings import Sightings, status_of
from graphquake.machines.plans.subplan import embeds
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import RunResult
from graphquake.machines.shrinking.result import Control, Shrunk


@dataclass(frozen=True, slots=True)
class Finding:
    """A new case, and the runs that show it.

    Attributes:
        case: the case.
        shown: a full run of the minimal plan. If none broke the promise again, the run in which the violation was first seen.
        original: the run in which the violation was first seen, before the shrink.
        others: other signatures that runs of the shrink showed. They may be other bugs, and were not followed.
        counts: true if the finding fails the session. A case that is not confirmed counts only in a strict session.
        path: the file of the case, or None if it was not saved.
    """

    case: Case
    shown: RunResult
    original: RunResult
    others: tuple[Signature, ...]
    counts: bool
    path: Path | None = None


class CostMeter:
    """Counts from the moment at which it is made.

    Args:
        log: the log of the search.
        gpus: the number of GPUs of one run.
    """

    def __init__(self, log: RunLog, gpus: int) -> None:
        self._log = log
        self._gpus = gpus
        self._runs = log.live.total()
        self._live_s = log.live_s
        self._unneeded = log.unneeded

    def cost(self, drawn: Plan, minimal_plan: Plan) -> ShrinkCost:
        """The cost so far of a shrink from the drawn plan to the minimal plan."""
        log = self._log
        live_s = log.live_s - self._live_s
        return ShrinkCost(
            steps=len(drawn.steps),
            plainer=not embeds(minimal_plan, drawn),
            live_runs=log.live.total() - self._runs,
            live_s=round(live_s),
            unneeded_runs=log.unneeded - self._unneeded,
            gpu_s=round(live_s * self._gpus),
            round=log.round,
            draw=len(log.plans) + 1,
        )


def case_of(
    spec: GraphSpec,
    host: Host,
    sightings: Sightings,
    shrunk: Shrunk,
    runs: Sequence[RunResult],
    cost: ShrinkCost,
) -> Case:
    """The case of a plan that was shrunk.

    Args:
        spec: the graph.
        host: the machine and the versions.
        sightings: the signature that the shrink followed, and the other signatures that its runs showed.
        shrunk: the minimal plan, and the counts behind it.
        runs: runs that show the violation. A report shows the first one.
        cost: the runs and the time that the shrink took.
    """
    promise = sightings.signature.promise
    own = {sightings.signature, *sightings.also(shrunk.plan)}
    shown = runs[0]
    return Case(
        id=case_id(spec.name, promise, shrunk.plan),
        title=title_of(promise, shrunk.plan, shown.history),
        status=status_of(promise, shrunk),
        graph={"name": spec.name, "shape": spec.shape, "digest": graph_digest(spec)},
        signature=sightings.signature,
        also=tuple(sorted(own - {sightings.signature}, key=str)),
        plan=shrunk.plan,
        seen=seen_text(promise, shown.history),
        own_steps={
            step.verb: spec.own_steps[step.verb] for step in shrunk.plan.steps if step.is_own
        },
        reach_s=sightings.reach_s(shrunk.plan, runs),
        bounds=bounds_of(spec),
        load=load_of(spec),
        any_replica=shrunk.any_replica,
        needed=shrunk.needed,
        numbers=shrunk.thresholds,
        differs=sightings.differs(shrunk.plan),
        control=_control(shrunk),
        cost=cost,
        observed=(_observed(sightings.hosts(shrunk.plan) or host.machine, host, shrunk),),
    )


def _control(shrunk: Shrunk) -> Control | None:
    if not shrunk.control_runs:
        return None
    return Control(shrunk.control_broke, shrunk.control_runs - shrunk.control_broke)


def with_past(case: Case, corpus: Corpus) -> Case:
    """Return a new case with the `why` and `observed` of an older case added, if the corpus has one of the same plan and signature.

    An older case of the same plan with another signature is another bug. It stays as it is, and the new case gets another id, because an
    id follows from the plan.
    """
    past = next((one for one in corpus if one.id == case.id), None)
    if past is not None and not past.names(case.signature):
        other = case_id(case.graph["name"], SEPARATOR.join(case.signature.family), case.plan)
        return with_past(replace(case, id=other), corpus)
    if past is None:
        return case
    if (past.status, case.status) == ("unshrunk", "unconfirmed"):
        # The budget ended before the violation was seen again, so the older case still holds.
        return past
    return replace(case, why=past.why, observed=(*past.observed, *case.observed))


def in_place_of(held: Case, case: Case) -> Case:
    """Return a case that takes the place of the held case from which it was shrunk, with the cost of both.

    The earlier series of runs stay. A user may have marked the held case in the meantime. The mark stays, too.
    """
    before, cost = held.cost, case.cost
    both = replace(
        cost,
        live_runs=before.live_runs + cost.live_runs,
        live_s=before.live_s + cost.live_s,
        unneeded_runs=before.unneeded_runs + cost.unneeded_runs,
        gpu_s=before.gpu_s + cost.gpu_s,
        round=before.round,
        draw=before.draw,
    )
    observed = (*held.observed[:-1], *case.observed)
    status = case.status if held.status == "open" else held.status
    return replace(case, status=status, cost=both, why=held.why, observed=observed)


def _observed(machine: str, host: Host, shrunk: Shrunk) -> Observed:
    return Observed(
        on=dt.datetime.now(dt.UTC).date().isoformat(),
        versions=dict(host.versions),
        host=machine,
        broke=shrunk.broke,
        runs=shrunk.runs,
    )

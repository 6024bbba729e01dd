"""A finding: the case that it becomes, and the runs that show it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graphquake.harness.promises.signature import SEPARATOR, Signature
from graphquake.harness.spec.graph import GraphSpec
from graphquake.machines.cases.case import Case, Observed, ShrinkCost, case_id, graph_digest
from graphquake.machines.cases.conditions import bounds_of, load_of
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.cases.replay import versions_of
from graphquake.machines.cases.wording import seen_text, title_of
from graphquake.machines.findings.sightings import Sightings, status_of
from graphquake.machines.runners.runner import RunResult
from graphquake.machines.shrinking.result import Control, Shrunk


@dataclass(frozen=True, slots=True)
class Finding:
    """A new case, and the runs that show it.

    Attributes:
        shown: a full run of the minimal plan; the first failing one if no full run broke it again.
        original: the run of the plan as it was drawn.
        others: signatures of further violations that were seen on the way: second findings, not chased.
        counts: whether it fails the session.
    """

    case: Case
    shown: RunResult
    original: RunResult
    others: tuple[Signature, ...]
    counts: bool
    path: Path | None = None


def case_of(
    spec: GraphSpec,
    host: Mapping[str, str],
    chase: Sightings,
    shrunk: Shrunk,
    sightings: Sequence[RunResult],
    cost: ShrinkCost,
) -> Case:
    """The case of a plan that was shrunk.

    Args:
        host: the machine and the versions.
        chase: the signature that was chased, and what was seen besides.
        sightings: runs that show it, the best one first.
        cost: what the shrink took.
    """
    promise = chase.signature.promise
    own = {chase.signature, *chase.also(shrunk.plan)}
    shown = sightings[0]
    return Case(
        id=case_id(spec.name, promise, shrunk.plan),
        title=title_of(promise, shrunk.plan, shown.history),
        status=status_of(promise, shrunk),
        graph={"name": spec.name, "shape": spec.shape, "digest": graph_digest(spec)},
        signature=chase.signature,
        also=tuple(sorted(own - {chase.signature}, key=str)),
        plan=shrunk.plan,
        seen=seen_text(promise, shown.history),
        reach_s=chase.reach_s(shrunk.plan, sightings),
        bounds=bounds_of(spec),
        load=load_of(spec),
        any_replica=shrunk.any_replica,
        needed=shrunk.needed,
        numbers=shrunk.thresholds,
        differs=chase.differs(shrunk.plan),
        control=_control(shrunk),
        cost=cost,
        observed=(_observed(host, shrunk),),
    )


def _control(shrunk: Shrunk) -> Control | None:
    if not shrunk.control_runs:
        return None
    return Control(shrunk.control_broke, shrunk.control_runs - shrunk.control_broke)


def with_past(case: Case, corpus: Corpus) -> Case:
    """A case that was there before (fixed, unconfirmed, unshrunk) keeps what was known about it.

    One of the same plan with another signature is another case, and stays as it is.
    """
    past = next((one for one in corpus if one.id == case.id), None)
    if past is not None and not past.names(case.signature):
        other = case_id(case.graph["name"], SEPARATOR.join(case.signature.family), case.plan)
        return with_past(replace(case, id=other), corpus)
    if past is None:
        return case
    if (past.status, case.status) == ("unshrunk", "unconfirmed"):
        # There was no time to see it again: what was known holds.
        return past
    return replace(case, why=past.why, observed=(*past.observed, *case.observed))


def _observed(host: Mapping[str, str], shrunk: Shrunk) -> Observed:
    return Observed(
        on=dt.datetime.now(dt.UTC).date().isoformat(),
        versions=versions_of(dict(host)),
        host=host.get("host", ""),
        broke=shrunk.broke,
        runs=shrunk.runs,
    )

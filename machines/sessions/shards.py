"""Merge the summaries of a search that several processes divide (`pytest -n K`).

Each process does one part of the search of each graph: a shard. Each shard draws plans from a seed that is derived from the session's
seed and the shard's number. The first shard also replays the cases.

The shards share only the folder of the cases. A case that one shard saves explains later violations in the other shards. Apart from that,
the plans that a shard draws do not depend on the other shards.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import chain

from graphquake.harness.errors import InputError
from graphquake.harness.history.history import History
from graphquake.machines.findings.finding import Finding
from graphquake.machines.reports.summary import GraphSummary
from graphquake.machines.runners.runner import RunResult


def packed(summaries: Iterable[GraphSummary]) -> bytes:
    """Pickle the summaries of a pytest-xdist worker for its controller. The histories are left out, since they can be large."""
    return pickle.dumps([_with_runs(one, _without_history) for one in summaries])


def unpacked(data: bytes) -> list[GraphSummary]:
    """Read what `packed` made in a worker of this pytest run. Histories that are still on disk are loaded again."""
    found: list[GraphSummary] = pickle.loads(data)  # noqa: S301 - a process of our own
    return [_with_runs(one, _with_history) for one in found]


def _with_runs(summary: GraphSummary, change: Callable[[RunResult], RunResult]) -> GraphSummary:
    """A copy of the summary, with `change` applied to each run that it shows."""
    findings = [
        replace(one, shown=change(one.shown), original=change(one.original))
        for one in summary.findings
    ]
    replays = [
        replace(one, shown=change(one.shown) if one.shown else None) for one in summary.replays
    ]
    return replace(summary, findings=findings, replays=replays)


def _without_history(outcome: RunResult) -> RunResult:
    return replace(outcome, history=History(outcome.history.spec, outcome.plan))


def _with_history(outcome: RunResult) -> RunResult:
    with suppress(InputError):
        if outcome.folder is not None:
            return replace(outcome, history=History.load(outcome.folder))
    return outcome


def merged(summaries: Iterable[GraphSummary]) -> list[GraphSummary]:
    """Merge the parts of each search into one summary, in the order of their first shards."""
    searches: list[list[GraphSummary]] = []
    for one in sorted(summaries, key=lambda one: one.shard):
        # Two summaries with the same folder and the same shard number belong to two searches.
        fits = (
            own for own in searches if own[0].folder == one.folder and own[-1].shard < one.shard
        )
        own = next(fits, None)
        if own is None:
            searches.append(own := [])
        own.append(one)
    return [_merged(own) for own in searches]


def _merged(parts: list[GraphSummary]) -> GraphSummary:
    findings: dict[str, Finding] = {}
    for finding in chain.from_iterable(one.findings for one in parts):
        findings.setdefault(finding.case.id, finding)
    return replace(
        parts[0],
        parts=tuple(one.shard for one in parts),
        spent_s=max(one.spent_s for one in parts),
        live=_sums(one.live for one in parts),
        causes=_sums(one.causes for one in parts),
        drawn=_sums(one.drawn for one in parts),
        tried=_sums(one.tried for one in parts),
        not_tried=[
            what for what in parts[0].not_tried if all(what in one.not_tried for one in parts)
        ],
        hidden=_sums(one.hidden for one in parts),
        hidden_text=dict(chain.from_iterable(one.hidden_text.items() for one in parts)),
        weak=_sums(one.weak for one in parts),
        made_good=sum(one.made_good for one in parts),
        unserved=_sums(one.unserved for one in parts),
        excused=sum(one.excused for one in parts),
        excused_runs=sum(one.excused_runs for one in parts),
        unneeded=sum(one.unneeded for one in parts),
        nodes=_sums(one.nodes for one in parts),
        gpu_s=sum(one.gpu_s for one in parts),
        run_s=list(chain.from_iterable(one.run_s for one in parts)),
        replays=list(chain.from_iterable(one.replays for one in parts)),
        findings=list(findings.values()),
        ended=", ".join(dict.fromkeys(one.ended for one in parts if one.ended)),
        error=", ".join(dict.fromkeys(one.error for one in parts if one.error)),
    )


def _sums(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)

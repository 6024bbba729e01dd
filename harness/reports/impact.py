"""The impact of faults on the service, in numbers, computed from a history.

Columns keep the names of Dynamo's fault tolerance suite, but fix its weaknesses. Every fault counts, not only the last one. Times come from
a monotonic clock, not from log lines in whole seconds. *Recovery* is split: a process may be ready long before, or long after, clients are
served again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from graphquake.harness.history.events import BecameReady, Measured, Resumed, Spawned, StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.percentile import percentile
from graphquake.harness.history.request import (
    Outcome,
    Request,
)
from graphquake.harness.spec.plan import Stall

# The suite calls a success that takes longer than this a violation.
SLOW_S: Final = 2.1
# Service is at its peak again if successes come at this share of their earlier rate. The rate is taken over the time that this many of them
# took before, and over at least a second.
PEAK_SHARE: Final = 0.9
PEAK_REQUESTS: Final = 20
PEAK_OVER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Times:
    """Times of some requests, in seconds, or None if there were none."""

    mean_s: float | None
    p50_s: float | None
    p99_s: float | None


def _times(values: Iterable[float]) -> Times:
    found = [value for value in values if not math.isnan(value)]
    mean_s = sum(found) / len(found) if found else None
    return Times(mean_s, percentile(found, 0.5), percentile(found, 0.99))


@dataclass(frozen=True, slots=True)
class Side:
    """The numbers before the first fault, or those after it.

    Attributes:
        latency: right answers, from sending to the last byte.
        first_token: right answers that were streamed, from sending to the first token.
        pending: the mean number of requests that waited in the graph, over the samples in which it had work. None if its metrics do not
            contain it.
        slow: the number of right answers that took longer than the threshold.
    """

    ok: int
    failed: int
    latency: Times
    first_token: Times
    pending: float | None
    slow: int


@dataclass(frozen=True, slots=True)
class Impact:
    """The impact of one fault.

    A failure counts for the last fault that had begun when it was seen. A replica may come back after the next fault. Times are seconds
    from the begin of the fault. None means never.

    Attributes:
        failed: the number of attempts that failed or were wrong.
        window_s: the error window: from the fault to the middle between the sending of the last failed request and of the next right
            one, or 0 if none failed.
        first_ok_s: the end of the first right answer to a request that was sent after the first failure, or after the fault if none failed.
        peak_s: the time from which on, after the last failure, right answers came as often as before the first fault.
        ready_s: the time at which the victim's next incarnation was ready, or at which a stalled victim ran again.
        expected: the number of failures if all requests failed that are sent until `first_ok_s`, at the rate before the first fault.
    """

    step: str
    at_s: float
    failed: int
    window_s: float | None
    first_ok_s: float | None
    peak_s: float | None
    ready_s: float | None
    expected: float | None


@dataclass(frozen=True, slots=True)
class Account:
    """All numbers of a run.

    Attributes:
        startup_s: the time from the first process to the readiness of the last replica, in seconds.
        ok, failed, shed: numbers of attempts. A wrong answer counts as failed.
    """

    startup_s: float
    ok: int
    failed: int
    shed: int
    before: Side
    after: Side
    impacts: tuple[Impact, ...]


def account(history: History, slow_s: float = SLOW_S) -> Account:
    """Compute the numbers of a run.

    Args:
        history: the run.
        slow_s: a right answer that takes longer counts as slow, in seconds.
    """
    faults = history.faults()
    sent = [r for r in history.requests if r.outcome and r.outcome != Outcome.LEFT]
    cut_s = faults[0].begun_s if faults else math.inf
    end_s = history.phase_began_s("drain") or history.end_s
    edges = [*(fault.begun_s for fault in faults), math.inf]
    rate_per_s = _ok_rate(sent, cut_s)
    offered_per_s = sum(r.sent_s < cut_s for r in sent) / cut_s if cut_s > 0 else 0.0
    impacts = tuple(
        _impact(history, sent, fault, until_s, rate_per_s, offered_per_s)
        for fault, (_, until_s) in zip(faults, pairwise(edges), strict=True)
    )
    return Account(
        startup_s=_startup_s(history),
        ok=sum(r.outcome == Outcome.OK for r in sent),
        failed=sum(map(_is_bad, sent)),
        shed=sum(r.outcome == Outcome.SHED for r in sent),
        before=_side(history, [r for r in sent if r.ended_s <= cut_s], 0.0, cut_s, slow_s),
        after=_side(history, [r for r in sent if r.ended_s > cut_s], cut_s, end_s, slow_s),
        impacts=impacts,
    )


def _is_bad(request: Request) -> bool:
    return request.failed or request.outcome == Outcome.WRONG


def _startup_s(history: History) -> float:
    spawned = [event.at_s for event in history.of(Spawned) if not event.incarnation]
    ready = [event.at_s for event in history.of(BecameReady) if not event.incarnation]
    return max(ready) - min(spawned) if spawned and ready else 0.0


def _side(
    history: History, requests: list[Request], from_s: float, to_s: float, slow_s: float
) -> Side:
    right = [r for r in requests if r.outcome == Outcome.OK]
    return Side(
        ok=len(right),
        failed=sum(map(_is_bad, requests)),
        latency=_times(r.latency_s for r in right),
        first_token=_times(r.first_s - r.sent_s for r in right if r.stream),
        pending=_pending(history, from_s, to_s),
        slow=sum(r.latency_s > slow_s for r in right),
    )


def _pending(history: History, from_s: float, to_s: float) -> float | None:
    samples: dict[float, list[Measured]] = {}
    for one in history.of(Measured):
        if from_s <= one.at_s < to_s:
            samples.setdefault(one.at_s, []).append(one)
    waiting = [
        sum(one.waiting or 0.0 for one in all_of)
        for all_of in samples.values()
        if any(one.waiting is not None for one in all_of)
        and any((one.in_flight or 0.0) + (one.waiting or 0.0) > 0 for one in all_of)
    ]
    return sum(waiting) / len(waiting) if waiting else None


def _impact(
    history: History,
    sent: list[Request],
    fault: StepDone,
    until_s: float,
    rate_per_s: float,
    offered_per_s: float,
) -> Impact:
    begun_s = fault.begun_s
    met = sorted((r for r in sent if r.ended_s >= begun_s), key=lambda r: r.sent_s)
    bad = [r for r in met if _is_bad(r) and r.ended_s < until_s]
    first_ok_s = _first_ok_s(met, bad, begun_s)
    return Impact(
        step=str(fault.step),
        at_s=begun_s,
        failed=len(bad),
        window_s=_window_s(met, bad, begun_s),
        first_ok_s=first_ok_s,
        peak_s=_peak_s(met, begun_s, max((r.ended_s for r in bad), default=begun_s), rate_per_s),
        ready_s=_ready_s(history, fault),
        expected=None if first_ok_s is None else first_ok_s * offered_per_s,
    )


def _ready_s(history: History, fault: StepDone) -> float | None:
    back = history.of(Resumed) if isinstance(fault.step, Stall) else history.of(BecameReady)
    return next(
        (
            event.at_s - fault.begun_s
            for event in back
            if event.replica == fault.victim and event.at_s > fault.begun_s
        ),
        None,
    )


def _window_s(met: list[Request], bad: list[Request], begun_s: float) -> float | None:
    if not bad:
        return 0.0
    last_s = bad[-1].sent_s
    well_s = next((r.sent_s for r in met if r.sent_s > last_s and r.outcome == Outcome.OK), None)
    return None if well_s is None else max(0.0, (max(last_s, begun_s) + well_s) / 2 - begun_s)


def _first_ok_s(met: list[Request], bad: list[Request], begun_s: float) -> float | None:
    # A request in flight at the fault may fail late. So the time at which the first failure was seen counts.
    since_s = max(begun_s, min((r.ended_s for r in bad), default=begun_s))
    return min(
        (r.ended_s - begun_s for r in met if r.outcome == Outcome.OK and r.sent_s >= since_s),
        default=None,
    )


def _ok_rate(sent: list[Request], until_s: float) -> float:
    ended = [r.ended_s for r in sent if r.outcome == Outcome.OK and r.ended_s <= until_s]
    return len(ended) / max(ended) if ended else 0.0


def _peak_s(met: list[Request], begun_s: float, since_s: float, rate_per_s: float) -> float | None:
    """Return the begin of the first interval after `since_s` in which right answers come about as often as before."""
    if rate_per_s <= 0:
        return None
    over_s = max(PEAK_OVER_S, PEAK_REQUESTS / rate_per_s)
    wanted = math.ceil(PEAK_SHARE * rate_per_s * over_s)
    ended = sorted(r.ended_s for r in met if r.outcome == Outcome.OK and r.ended_s >= since_s)
    for first, last in zip([since_s, *ended], ended[wanted - 1 :], strict=False):
        if last - first <= over_s:
            return first - begun_s
    return None

"""The impact of faults on the service, in numbers, computed from a history.

Most numbers have the same names as in Dynamo's fault tolerance suite. They are measured in another way. Every fault counts, not only the
last one. Times come from a monotonic clock, not from log lines in whole seconds. *Recovery* is split into two numbers: the time until the
process is ready, and the time until clients get right answers. Each of them may be much longer than the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from graphquake.harness.history.events import (
    BecameReady,
    Measured,
    Resumed,
    Spawned,
    StepDone,
    Undone,
)
from graphquake.harness.history.history import History
from graphquake.harness.history.percentile import percentile
from graphquake.harness.history.request import (
    AS_ASKED,
    Outcome,
    Request,
)
from graphquake.harness.spec.plan import Own, Stall

# Dynamo's suite calls a right answer that takes longer than this a "violation". It is not a violation in the sense of our glossary.
SLOW_S: Final = 2.1
# Service is back at its peak if right answers/s reach this share of their rate before the first fault.
# The rate is measured over the time in which `PEAK_REQUESTS` right answers came before that fault, and over at least `PEAK_OVER_S`.
PEAK_SHARE: Final = 0.9
PEAK_REQUESTS: Final = 20
PEAK_OVER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Times:
    """The mean, the median and the 99th percentile of the times of some requests, in seconds. All are None if there were no requests."""

    mean_s: float | None
    p50_s: float | None
    p99_s: float | None


def _times(values: Iterable[float]) -> Times:
    found = [value for value in values if not math.isnan(value)]
    mean_s = sum(found) / len(found) if found else None
    return Times(mean_s, percentile(found, 0.5), percentile(found, 0.99))


@dataclass(frozen=True, slots=True)
class Side:
    """The numbers of the requests that ended before the first fault, or of those that ended after it.

    Attributes:
        ok: the number of right answers.
        failed: the number of attempts that failed or were wrong.
        latency: the times of right answers, from sending the request to the last byte.
        first_token: the times of right answers that were streamed, from sending the request to the first token.
        pending: the mean number of requests that waited in the graph, over the samples in which the graph had work. None if the
            graph's metrics do not report waiting requests.
        slow: the number of right answers that took longer than the `slow_s` of `account`.
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

    A failure counts for the last fault that had begun when the failure was seen. The recovery from a fault may end after the next fault.
    All times except `at_s` are seconds from the start of the fault. A time of None means that its event never happened.

    Attributes:
        step: the fault, in words.
        at_s: the start of the fault, in seconds on the run's clock.
        failed: the number of attempts that failed or were wrong.
        window_s: the length of the error window. It ends halfway between two sendings: of the last failed request, and of the next
            request that got a right answer. 0 if no request failed.
        first_ok_s: the end of the first right answer to a request that was sent after the first failure, or after the fault if none failed.
        peak_s: the first time after the last failure at which right answers came about as often as before the first fault.
        ready_s: the time at which the victim's next incarnation was ready, or at which a stalled victim ran again, or at
            which a step of the user's own was undone.
        expected: the number of requests that are sent until `first_ok_s` at the sending rate before the first fault. All of them would
            fail if the fault took down the whole graph. None if `first_ok_s` is None.
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
    """All numbers of a run. Attempts whose client closed the connection itself are not counted anywhere.

    Attributes:
        startup_s: the time from the start of the first process to the readiness of the last replica, in seconds.
        ok, failed, shed: the numbers of attempts that got a right answer, failed, or were declined as overload. A wrong answer counts
            as failed.
        before: the numbers of the attempts that ended before the first fault began. All attempts if there was no fault.
        after: the numbers of the attempts that ended later.
        impacts: the impact of each fault that landed, in order of time.
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
        slow_s: the time in seconds. A right answer that takes longer counts as slow.
    """
    faults = history.faults()
    sent = [r for r in history.requests if r.outcome and r.outcome not in AS_ASKED]
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
    if isinstance(fault.step, Own):
        undone = (event for event in history.of(Undone) if event.number == fault.number)
        return next((event.at_s - fault.begun_s for event in undone), None)
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
    # A request that was in flight at the fault may fail late. So only requests that were sent after the first failure was seen count.
    since_s = max(begun_s, min((r.ended_s for r in bad), default=begun_s))
    return min(
        (r.ended_s - begun_s for r in met if r.outcome == Outcome.OK and r.sent_s >= since_s),
        default=None,
    )


def _ok_rate(sent: list[Request], until_s: float) -> float:
    ended = [r.ended_s for r in sent if r.outcome == Outcome.OK and r.ended_s <= until_s]
    return len(ended) / max(ended) if ended else 0.0


def _peak_s(met: list[Request], begun_s: float, since_s: float, rate_per_s: float) -> float | None:
    """Return the start of the first interval after `since_s` in which right answers come about as often as before the first fault.

    The result is in seconds from the start of the fault, `begun_s`. None if there is no such interval.
    """
    if rate_per_s <= 0:
        return None
    over_s = max(PEAK_OVER_S, PEAK_REQUESTS / rate_per_s)
    wanted = math.ceil(PEAK_SHARE * rate_per_s * over_s)
    ended = sorted(r.ended_s for r in met if r.outcome == Outcome.OK and r.ended_s >= since_s)
    for first, last in zip([since_s, *ended], ended[wanted - 1 :], strict=False):
        if last - first <= over_s:
            return first - begun_s
    return None

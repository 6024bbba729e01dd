"""The promise `refusals_are_cheap`: a request that must be refused opens no circuit breaker, and slows no other request.

A router that counts a status 4xx as a failure of its server stops using a healthy server. An engine that fails a whole batch, because one
prompt in it is too long, fails the requests of others. Both need only a client that makes a mistake.

Requests that must be refused are prompts that are too long, and malformed requests. Only bursts send them. What happens after them is
their fault only if nothing else has happened: no fault has begun, and no burst has sent other requests. Otherwise `error_window` judges
the failures of others, and `throughput` their latency.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from graphquake.harness.history.history import History
from graphquake.harness.history.percentile import percentile
from graphquake.harness.history.request import FAILED, Outcome, Request
from graphquake.harness.promises.availability import Availability, Stretch
from graphquake.harness.promises.clients.honest import is_dishonest
from graphquake.harness.promises.verdict import Violation, violation_in

# The least numbers of requests for a judgement: shed requests, and right answers during the refusals and before them.
SHED_MIN: Final = 3
DURING_MIN: Final = 8
BEFORE_MIN: Final = 5
# The time by which the median may exceed its bound, in seconds. Even 40 cheap refusals at once keep two cores busy for a moment.
SLACK_S: Final = 0.1
# Requests that are sent up to this time after the last refusal still count as sent during the refusals, in seconds.
AFTER_S: Final = 1.0


def refusals_are_cheap(history: History, up: Availability) -> Iterator[Violation]:
    """After requests that must be refused, and nothing else, no other request fails, few are shed, and the others are about as fast."""
    for request in spoiled(history, up):
        yield violation_in(
            history,
            "refusals_are_cheap",
            request.detail,
            request.ended_s,
            f"request {request.number} failed after requests that must be refused: {request.detail}",
            request.number,
        )
    during = _refusals(history)
    if during is None or history.phase_began_s("drain") is None:
        return
    sent = [r for r in history.requests if r.steady and during.holds_at(r.sent_s)]
    shed = [r for r in sent if r.outcome == Outcome.SHED]
    if len(shed) >= SHED_MIN:
        seen = f"{len(shed)} requests were shed after requests that must be refused"
        yield violation_in(history, "refusals_are_cheap", "shed", shed[0].ended_s, seen)
    yield from _slower(history, during, sent)


def _slower(history: History, during: Stretch, sent: list[Request]) -> Iterator[Violation]:
    right = [r.latency_s for r in sent if r.outcome == Outcome.OK]
    before = [
        r.latency_s
        for r in history.requests
        if r.outcome == Outcome.OK and r.ended_s < during.begin_s
    ]
    if len(right) < DURING_MIN or len(before) < BEFORE_MIN:
        return
    median_s = percentile(right, 0.5) or 0.0
    most_s = history.spec.promises.refusals_slower * max(before) + SLACK_S
    if median_s > most_s:
        seen = f"the median latency beside refused requests is {median_s:.2f} s, at most {max(before):.2f} s before them"
        yield violation_in(history, "refusals_are_cheap", "slower", during.begin_s, seen)


def spoiled(history: History, up: Availability) -> list[Request]:
    """Return the failures that this promise judges, so that no other promise does."""
    made = history.spec.promises.made
    refused_s = _first_s(history, refused=True)
    if "refusals_are_cheap" not in made or math.isinf(refused_s):
        return []
    until_s = _other_cause_s(history)
    failures = FAILED - {Outcome.TIMED_OUT} if "ends" in made else FAILED
    return [
        request
        for request in history.requests
        if request.outcome in failures
        and not request.must_be_refused
        and refused_s <= request.ended_s < until_s
        and up.path_during(Stretch(request.sent_s, request.ended_s))
        and not is_dishonest(history, request)
    ]


def _refusals(history: History) -> Stretch | None:
    """The time of requests that must be refused, and a little longer. None if something else happened in it."""
    refused = [r for r in history.requests if r.must_be_refused and r.outcome]
    if not refused:
        return None
    begin_s = min(r.sent_s for r in refused)
    end_s = max(r.ended_s for r in refused) + AFTER_S
    return Stretch(begin_s, end_s) if end_s < _other_cause_s(history) else None


def _other_cause_s(history: History) -> float:
    """The first moment at which a failure can have another cause: a fault, or a burst of other requests."""
    faults = (begun_s for begun_s, _ in history.disturbed())
    return min(_first_s(history, refused=False), *faults, math.inf)


def _first_s(history: History, *, refused: bool) -> float:
    """The time at which the first request of a burst was sent that must be refused, or must not be. Infinity if there is none."""
    sent_s = (r.sent_s for r in history.requests if not r.steady and r.must_be_refused == refused)
    return min((one for one in sent_s if not math.isnan(one)), default=math.inf)

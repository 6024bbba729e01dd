"""The promise `throughput`: after the graph has recovered, it serves as many requests as before, and about as fast.

Only this promise notices a graph that sheds its load, falls behind or becomes slow, and stays so. It judges the steady load of the steady
phase, after the last excused interval. If dead replicas stay dead, only the latency is judged, and its bound allows for the lost capacity.
For that, the graph file has to give the `capacity` of each role that lost a replica. Otherwise the promise is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from graphquake.harness.history.events import StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.percentile import percentile
from graphquake.harness.history.request import (
    Outcome,
    Request,
)
from graphquake.harness.promises.availability import Availability, Stretch, up_stretches
from graphquake.harness.promises.verdict import Violation, violation_in
from graphquake.harness.spec.replica import Replica

# The least numbers of requests for a judgement: shed requests, requests for a share, right answers for the p90 after and before the faults.
SHED_MIN: Final = 3
COUNTED_MIN: Final = 50
LATENCIES_MIN: Final = 200
BASELINE_MIN: Final = 5
# The time by which the p90 of the latency may exceed its bound, in seconds.
SLACK_S: Final = 0.05


def throughput(history: History, up: Availability) -> Iterator[Violation]:
    """In the steady phase, the graph sheds almost no request, completes as many as arrive, and is about as fast as before the faults."""
    window = _steady_window(history, up)
    if window is None:
        return
    sent = [r for r in history.requests if r.steady and window.holds_at(r.sent_s)]
    longer = queueing(history, window.end_s)
    if longer is None:
        return
    yield from _slower(history, window, [r for r in sent if r.outcome == Outcome.OK], longer)
    # If replicas are missing, some requests may have to wait or to be shed, so these two are not judged.
    if longer == 1:
        yield from _sheds(history, sent)
        yield from _falls_behind(history, window, sent)


def _steady_window(history: History, up: Availability) -> Stretch | None:
    """Return the part of the steady phase after all excused intervals and bursts, or None if the run did not complete that phase."""
    begun_s, ended_s = history.phase_began_s("steady"), history.phase_began_s("drain")
    if begun_s is None or ended_s is None:
        return None
    # While a burst's requests are sent, or are still in the graph, the load is not steady.
    bursts = (r.ended_s for r in history.requests if r.outcome and not r.steady)
    return Stretch(max([begun_s, *(x.end_s for x in up.excused), *bursts]), ended_s)


def _sheds(history: History, sent: Sequence[Request]) -> Iterator[Violation]:
    shed = [r for r in sent if r.outcome == Outcome.SHED]
    if len(shed) >= SHED_MIN and len(shed) > (1 - history.spec.promises.success) * len(sent):
        seen = f"{len(shed)} of {len(sent)} requests were shed"
        yield violation_in(history, "throughput", "shed", shed[0].ended_s, seen, shed[0].number)


def _falls_behind(
    history: History, window: Stretch, sent: Sequence[Request]
) -> Iterator[Violation]:
    done = sum(r.outcome is not None and window.holds_at(r.ended_s) for r in history.requests)
    kept_up = done + _more_in_flight(history, window)
    if len(sent) >= COUNTED_MIN and kept_up < history.spec.promises.goodput * len(sent):
        length_s = window.end_s - window.begin_s
        seen = f"{done} requests ended in {length_s:.1f} s in which {len(sent)} began"
        yield violation_in(history, "throughput", "falls behind", window.begin_s, seen)


def _more_in_flight(history: History, window: Stretch) -> int:
    """Return the increase of the requests in flight from the beginning to the end of a window.

    At the end, only right answers of an allowed latency count. So the result is not more than what this latency explains.
    """
    baseline = _baseline(history)
    if len(baseline) < BASELINE_MIN:
        return 0
    slowest_s = _slowest_s(history, baseline, 1.0)
    begin = sum(r.sent_s < window.begin_s <= r.ended_s for r in history.requests if r.outcome)
    end = sum(
        r.sent_s < window.end_s <= r.ended_s and r.latency_s <= slowest_s
        for r in history.requests
        if r.outcome == Outcome.OK
    )
    return max(0, end - begin)


def _baseline(history: History) -> list[Request]:
    """Return the right answers to requests that were sent in the undisturbed period. A selection by their end would leave out slow ones."""
    until_s = history.undisturbed_s() or 0.0
    return [r for r in history.requests if r.outcome == Outcome.OK and r.sent_s <= until_s]


def _slowest_s(history: History, baseline: Sequence[Request], longer: float) -> float:
    """Return the largest p90 of the latency that is allowed in the steady phase, in seconds."""
    before_s = percentile((r.latency_s for r in baseline), 0.9) or 0.0
    return history.spec.promises.slower * longer * before_s + SLACK_S


def queueing(history: History, at_s: float) -> float | None:
    """Return the factor by which the latency may exceed its value before the faults, because dead replicas stay dead.

    Args:
        history: the run.
        at_s: the time at which the live replicas are counted, in seconds on the run's clock.

    Returns:
        The factor, at least 1. 1 if heal starts dead replicas again or no replica is missing. None if the capacity of a missing replica
        is not known.
    """
    spec = history.spec
    alive = {
        name for name, up in up_stretches(history).items() if any(s.holds_at(at_s) for s in up)
    }
    living = {
        role.name: sum(Replica(role.name, i) in alive for i in range(role.replicas))
        for role in spec.roles
    }
    missing = [role for role in spec.roles if living[role.name] < role.replicas]
    if history.plan.heal == "all" or not missing:
        return 1.0
    if not all(role.capacity for role in missing):
        return None
    demand = _in_flight(history)
    least = max(1, min(role.capacity * living[role.name] for role in missing))
    most = min(role.capacity * role.replicas for role in missing)
    waiting = max(1.0, demand / least) / max(1.0, demand / most)
    # Each remaining replica serves more requests at once than before. It may be slower by that ratio, even if no request has to wait.
    return max(waiting, *(role.replicas / max(1, living[role.name]) for role in missing))


def _in_flight(history: History) -> float:
    """Return the average number of requests in flight in the undisturbed period."""
    until_s = history.undisturbed_s() or history.end_s
    lives = (
        min(r.ended_s, until_s) - r.sent_s
        for r in history.requests
        if r.outcome and r.sent_s < until_s
    )
    return sum(lives) / until_s if until_s > 0 else 0.0


def _slower(
    history: History, window: Stretch, steady: Sequence[Request], longer: float
) -> Iterator[Violation]:
    if all(step.waits for step in history.of(StepDone)):
        return
    baseline = _baseline(history)
    if len(steady) < LATENCIES_MIN or len(baseline) < BASELINE_MIN:
        return
    after_s = percentile((r.latency_s for r in steady), 0.9) or 0.0
    if after_s > _slowest_s(history, baseline, longer):
        before_s = percentile((r.latency_s for r in baseline), 0.9) or 0.0
        seen = f"the p90 of the latency is {after_s:.2f} s, {before_s:.2f} s before the plan"
        yield violation_in(history, "throughput", "slower", window.begin_s, seen)

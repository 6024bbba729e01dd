"""The promise `collapse`: after an overload the graph is well again, when the load is back to normal and everything is healed.

An overload that outlasts its cause is called metastable: queues that only grow longer, retries that cause retries, a cache that is never
warm again. Failures and shed requests show in other promises. This one compares latencies: those at the end of the load with those before
the plan.

Only bursts overload a graph, so only plans with bursts are judged. The graph gets `within_s` to become well, counted from the end of the
last request of a burst, and of everything that excuses failures. A run goes on for so long only while the graph is slow (see
`is_undecided`). So a graph that is well soon costs no time, and is not judged by luck.

If there are enough right answers for `throughput` to judge the latency, this promise leaves it to `throughput`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from graphquake.harness.history.history import History
from graphquake.harness.history.percentile import percentile
from graphquake.harness.history.request import Outcome, Request
from graphquake.harness.promises.availability import Availability, availability
from graphquake.harness.promises.throughput import LATENCIES_MIN
from graphquake.harness.promises.verdict import Violation, violation_in

# The end of the load in which latencies are judged, in seconds, and the least numbers of right answers in it and before the plan.
SPAN_S: Final = 2.0
AFTER_MIN: Final = 10
BEFORE_MIN: Final = 5
# The time by which the median may exceed its bound, in seconds.
SLACK_S: Final = 0.1


def collapse(history: History, up: Availability) -> Iterator[Violation]:
    """At the end of a load with bursts, the median latency is at most `slower` times the largest latency before the plan."""
    ends_s = history.phase_began_s("drain")
    quiet_s = _quiet_s(history, up)
    if ends_s is None or quiet_s is None or _serves_less(history):
        return
    begin_s = ends_s - SPAN_S
    if begin_s < quiet_s + history.spec.promises.well_s:
        return
    right = _right(history, begin_s, ends_s)
    most_s = _most_s(history)
    if (
        most_s is None
        or not len(right) >= AFTER_MIN
        or len(_right(history, quiet_s, ends_s)) >= LATENCIES_MIN
    ):
        return
    median_s = percentile((r.latency_s for r in right), 0.5) or 0.0
    if median_s > most_s:
        seen = (
            f"{begin_s - quiet_s:.1f} s after the last burst, the median latency is {median_s:.2f} s; "
            f"{most_s:.2f} s would be well"
        )
        yield violation_in(history, "collapse", "still slow", begin_s, seen)


def is_undecided(history: History, now_s: float) -> bool:
    """True if the load must go on until it is known whether the graph becomes well: it is slow now, and its time is not over.

    Args:
        history: the run so far.
        now_s: the present time, in seconds on the run's clock.
    """
    if "collapse" not in history.spec.promises.made or _serves_less(history):
        return False
    if any(not r.steady and not r.outcome for r in history.requests):
        return True
    quiet_s, most_s = _quiet_s(history, availability(history)), _most_s(history)
    if quiet_s is None or most_s is None:
        return False
    if now_s >= quiet_s + history.spec.promises.well_s + SPAN_S:
        return False
    # A request in flight has at least the latency that it has by now.
    recent = [r.latency_s for r in _right(history, now_s - SPAN_S, now_s)]
    recent += [now_s - r.sent_s for r in history.requests if r.steady and not r.outcome]
    return (percentile(recent, 0.5) or 0.0) > most_s


def _serves_less(history: History) -> bool:
    """True if dead replicas stay dead. The rest may then rightly be slower."""
    return history.plan.heal != "all"


def _quiet_s(history: History, up: Availability) -> float | None:
    """The time from which nothing disturbs the graph any more, or None if no burst was sent, or one is still in flight."""
    bursts = [r for r in history.requests if not r.steady]
    healed_s = history.phase_began_s("recover")
    if not bursts or healed_s is None or not all(r.outcome for r in bursts):
        return None
    return max([healed_s, *(r.ended_s for r in bursts), *(one.end_s for one in up.excused)])


def _right(history: History, begin_s: float, end_s: float) -> Sequence[Request]:
    """The right answers of the steady load that were sent in an interval."""
    return [
        r
        for r in history.requests
        if r.steady and r.outcome == Outcome.OK and begin_s <= r.sent_s <= end_s
    ]


def _most_s(history: History) -> float | None:
    """The largest median latency that counts as well, in seconds, or None if too few requests were answered before the plan."""
    until_s = history.undisturbed_s() or 0.0
    # A request that was in flight when the burst began may be slow because of it.
    before = [r for r in _right(history, 0.0, until_s) if r.ended_s <= until_s]
    if len(before) < BEFORE_MIN:
        return None
    return history.spec.promises.well_slower * max(r.latency_s for r in before) + SLACK_S

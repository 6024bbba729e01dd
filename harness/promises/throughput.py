"""The promise `throughput`: once all is well again, the graph does as much as before.

Failures are for other promises; this one is about a graph that refuses politely, falls behind, or became slow, and stays so. It is judged
over the steady load of the steady phase, as far as no fault's window reaches into it. Where the dead stay dead, the bounds follow the
capacity that is left, if the graph file gives it for the roles that lost a replica; if not, nothing is promised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from graphquake.harness.history.events import StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.request import (
    Outcome,
    Request,
)
from graphquake.harness.promises.availability import Availability, Stretch, up_stretches
from graphquake.harness.promises.verdict import Violation, violation_in
from graphquake.harness.spec.replica import Replica

# Fewer requests than these say nothing about a share of them, or about a percentile.
SHED_MIN: Final = 3
COUNTED_MIN: Final = 50
LATENCIES_MIN: Final = 200
BASELINE_MIN: Final = 5
SLACK_S: Final = 0.05


def throughput(history: History, up: Availability) -> Iterator[Violation]:
    """While steady: nearly nothing is shed, as many requests end as begin, and latency is about the baseline's."""
    begun_s, ended_s = history.phase_began_s("steady"), history.phase_began_s("drain")
    if begun_s is None or ended_s is None:
        return
    # A burst whose requests are still going out, or still in it, is no steady load.
    bursts = (r.ended_s for r in history.requests if r.outcome and not r.steady)
    begin_s = max([begun_s, *(x.end_s for x in up.excused), *bursts])
    window = Stretch(begin_s, ended_s)
    sent = [r for r in history.requests if r.steady and _begins_in(window, r)]
    longer = queueing(history, ended_s)
    if longer is None:
        return
    yield from _slower(history, window, [r for r in sent if r.outcome == Outcome.OK], longer)
    if longer > 1:
        return  # With less capacity some of it may have to wait, or to be shed.
    bounds = history.spec.promises
    shed = [r for r in sent if r.outcome == Outcome.SHED]
    if len(shed) >= SHED_MIN and len(shed) > (1 - bounds.success) * len(sent):
        seen = f"{len(shed)} of {len(sent)} requests were shed"
        yield violation_in(history, "throughput", "shed", shed[0].ended_s, seen, shed[0].number)
    done = [
        r for r in history.requests if r.outcome and window.begin_s <= r.ended_s <= window.end_s
    ]
    if len(sent) >= COUNTED_MIN and len(done) < bounds.goodput * len(sent):
        seen = f"{len(done)} requests ended in {ended_s - begin_s:.1f} s in which {len(sent)} began"
        yield violation_in(history, "throughput", "falls behind", begin_s, seen)


def queueing(history: History, at_s: float) -> float | None:
    """How many times longer than before a request may take, because it waits for those that are dead and stay so.

    Args:
        at_s: when it is looked who lives.

    Returns:
        1 if nobody is missing, None if it is not known what a missing one could do.
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
    # Those that are left do more at once, and may be slower by as much, before anything has to wait.
    return max(waiting, *(role.replicas / max(1, living[role.name]) for role in missing))


def _in_flight(history: History) -> float:
    """How many requests were in flight on average before anything was done to the graph."""
    until_s = history.undisturbed_s() or history.end_s
    lives = (
        min(r.ended_s, until_s) - r.sent_s
        for r in history.requests
        if r.outcome and r.sent_s < until_s
    )
    return sum(lives) / until_s if until_s > 0 else 0.0


def _begins_in(window: Stretch, request: Request) -> bool:
    return window.begin_s <= request.sent_s <= window.end_s


def _slower(
    history: History, window: Stretch, steady: Sequence[Request], longer: float
) -> Iterator[Violation]:
    if all(step.waits for step in history.of(StepDone)):
        return
    until_s = history.undisturbed_s() or 0.0
    # By when they were sent: of those that ended by then the slow ones would be missing.
    baseline = [r for r in history.requests if r.outcome == Outcome.OK and r.sent_s <= until_s]
    if len(steady) < LATENCIES_MIN or len(baseline) < BASELINE_MIN:
        return
    before_s, after_s = _p90_s(baseline), _p90_s(steady)
    if after_s > history.spec.promises.slower * longer * before_s + SLACK_S:
        seen = f"the p90 of the latency is {after_s:.2f} s, {before_s:.2f} s before the plan"
        yield violation_in(history, "throughput", "slower", window.begin_s, seen)


def _p90_s(requests: Sequence[Request]) -> float:
    return sorted(r.latency_s for r in requests)[math.ceil(0.9 * len(requests)) - 1]

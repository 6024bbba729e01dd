"""The promise `drain`: a replica that gets SIGTERM finishes the requests that it has admitted. A graph makes it only if its file says so.

Many programs are documented to end at once after SIGTERM: nginx and HAProxy drain after other signals, and vLLM aborts requests in flight.
So the promise is off unless a graph file makes it.

A client does not know which replica has admitted its request. So every request counts that was in flight when the SIGTERM was sent, under
these conditions:

- It was sent at least `ADMITTED_S` before. A younger one may still wait in the backlog of a socket that the replica closes.
- A path was up before the SIGTERM, and for all of its life if the replica is not an entry. Otherwise it may have waited for the replica.
- It failed within the grace period: `within_s` of the promise, or `stop_s` of the role. A replica may give up a longer one.
- No other fault can be the reason for its failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from graphquake.harness.history.events import StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.request import Outcome, Request
from graphquake.harness.promises.availability import Availability, Stretch
from graphquake.harness.promises.clients.honest import is_dishonest
from graphquake.harness.promises.verdict import Violation, violation_in
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.processes.interrupt import Interrupt

# The age of a request that every server has accepted, unless it is overloaded, in seconds.
ADMITTED_S: Final = 0.1
# A request that got no connection was never admitted. `ends` judges requests that reached their deadline.
_LOST: Final = frozenset({Outcome.ERROR, Outcome.TRUNCATED})


def drain(history: History, up: Availability) -> Iterator[Violation]:
    """No request that was in flight when a replica got SIGTERM fails within the grace period of its role, while other replicas serve."""
    for request, fault, at_s in lost_by_drains(history, up):
        after_s = request.ended_s - at_s
        yield violation_in(
            history,
            "drain",
            request.detail,
            request.ended_s,
            f'request {request.number}, in flight when "{fault.step}" began, failed {after_s:.2f} s later: {request.detail}',
            request.number,
        )


def lost_by_drains(history: History, up: Availability) -> Iterator[tuple[Request, StepDone, float]]:
    """Yield each request that `drain` judges as lost, with the fault that sent the SIGTERM, and the time of the SIGTERM in seconds.

    No other promise judges these requests. A SIGINT is not a SIGTERM: many programs end at once after it.
    """
    if "drain" not in history.spec.promises.made:
        return
    endings = [one for one in history.endings() if one[0].step.verb != Interrupt.verb]
    for request in history.requests:
        if request.outcome in _LOST and not is_dishonest(history, request):
            by = next((one for one in endings if _lost_by(history, up, one, request)), None)
            if by is not None:
                yield request, by[0], by[2]


def _lost_by(
    history: History, up: Availability, ending: tuple[StepDone, Replica, float], request: Request
) -> bool:
    """True if a request counts as lost by a shutdown."""
    fault, replica, told_s = ending
    spec = history.spec
    grace_s = spec.promises.drain_s or spec.role(replica.role).stop_s
    if not request.sent_s + ADMITTED_S <= told_s < request.ended_s <= told_s + grace_s:
        return False
    life = Stretch(request.sent_s, request.ended_s)
    if replica.role != spec.entry_role.name and not up.path_during(life):
        return False
    if not up.path_during(Stretch(request.sent_s, told_s)):
        return False
    own = (told_s, told_s) if fault.told else (fault.begun_s, fault.at_s)
    others = set(history.disturbed()) - {own}
    window_s = spec.promises.window_s + up.notice_s
    return not any(life.meets(Stretch(begun_s, at_s + window_s)) for begun_s, at_s in others)

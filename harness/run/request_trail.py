"""Follow the requests of a run while it goes on, in a time that does not grow with the number of earlier requests.

The clients append each request to one list when they send it, and change it until it ends. A request that has an outcome never changes
again. So each call visits only new requests, and those that were in flight at the last call.
"""

from __future__ import annotations

from collections import deque
from dataclasses import fields
from operator import attrgetter
from typing import Final

from graphquake.harness.history.request import AS_ASKED, Outcome, Request
from graphquake.harness.spec.load import LoadSpec

# Clients are calm if they were served well for this time, in seconds.
CALM_S: Final = 0.5
# The number of right answers that clients must have got in these `CALM_S` seconds. At a low rate, half of the requests due are enough.
CALM_ANSWERS: Final = 5.0
# Clients are not calm while a request hangs. It hangs if it had been in flight for this long when the last `CALM_S` seconds began.
OVERDUE_S: Final = 0.5

_VALUES: Final = attrgetter(*(field.name for field in fields(Request)))


class RequestTrail:
    """Follows the requests of one run: counts right answers and failures, and knows which requests are in flight.

    Args:
        requests: the list that the clients append to.

    Attributes:
        failed: the number of requests that failed.
        ok: the number of requests that got a right answer.
        unwell: the number of requests that ended without a right answer, except those whose client left.
    """

    def __init__(self, requests: list[Request]) -> None:
        self.failed = 0
        self.ok = 0
        self.unwell = 0
        self._requests = requests
        self._followed = 0
        self._in_flight: dict[int, Request] = {}
        self._recent = deque[Request]()

    def follow(self) -> None:
        """Update the counts with the requests that were sent or have ended since the last call."""
        for place in range(self._followed, len(self._requests)):
            self._in_flight[place] = self._requests[place]
        self._followed = len(self._requests)
        for place in [place for place, one in self._in_flight.items() if one.outcome]:
            self._end(self._in_flight.pop(place))

    def _end(self, request: Request) -> None:
        self.failed += request.failed
        self.ok += request.outcome == Outcome.OK
        self.unwell += request.outcome not in {Outcome.OK, *AS_ASKED}
        self._recent.append(request)
        while self._recent[0].ended_s < request.ended_s - CALM_S:
            self._recent.popleft()

    def is_calm(self, now_s: float, load: LoadSpec) -> bool:
        """True if, in the last `CALM_S` seconds, clients got enough right answers, and no request failed, was shed, or hung.

        Args:
            now_s: the present time on the run's clock, in seconds.
            load: the load of the graph.
        """
        self.follow()
        since_s = now_s - CALM_S
        ended = [one for one in self._recent if one.ended_s >= since_s]
        if any(one.failed or one.outcome == Outcome.SHED for one in ended):
            return False
        if any(one.sent_s < since_s - OVERDUE_S for one in self._in_flight.values()):
            return False
        wanted = 1.0 if load.clients else min(CALM_ANSWERS, load.rate_per_s * CALM_S / 2)
        return sum(one.outcome == Outcome.OK for one in ended) >= wanted

    def snapshot(self) -> list[Request]:
        """All requests so far, as they are now. Those in flight are copied, because the clients still change them."""
        self.follow()
        requests = self._requests.copy()
        for place, one in self._in_flight.items():
            requests[place] = Request(*_VALUES(one))
        return requests

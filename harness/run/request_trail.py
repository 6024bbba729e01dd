"""Follow the requests of a run while it goes on, in a time that does not grow with the number of earlier requests.

The clients append each request to one list when they send it, and change it until it ends. A request that has an outcome never changes
again. So each call visits only new requests, and those that were in flight at the last call.
"""

from __future__ import annotations

from collections import deque
from dataclasses import fields
from operator import attrgetter
from typing import Final

from graphquake.harness.history.request import (
    AS_ASKED,
    Outcome,
    Request,
)

_VALUES: Final = attrgetter(*(field.name for field in fields(Request)))


class RequestTrail:
    """Follows the requests of one run: counts failures, and knows which requests are in flight.

    Args:
        requests: the list that the clients append to.
        recent_s: the time for which `ended_since` remembers a request after its end, in seconds.

    Attributes:
        failed: the number of requests that failed.
        unwell: the number of requests that ended without a right answer, except those whose client left.
    """

    def __init__(self, requests: list[Request], recent_s: float) -> None:
        self.failed = 0
        self.unwell = 0
        self._requests = requests
        self._recent_s = recent_s
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
        self.unwell += request.outcome not in {Outcome.OK, *AS_ASKED}
        self._recent.append(request)
        while self._recent[0].ended_s < request.ended_s - self._recent_s:
            self._recent.popleft()

    def ended_since(self, at_s: float) -> list[Request]:
        """The requests that ended at `at_s` or later. `at_s` must not be longer ago than `recent_s`."""
        self.follow()
        return [one for one in self._recent if one.ended_s >= at_s]

    def in_flight(self) -> list[Request]:
        """The requests that have not ended yet."""
        self.follow()
        return list(self._in_flight.values())

    def snapshot(self) -> list[Request]:
        """All requests so far, as they are now. Those in flight are copied, because the clients still change them."""
        self.follow()
        requests = self._requests.copy()
        for place, one in self._in_flight.items():
            requests[place] = Request(*_VALUES(one))
        return requests

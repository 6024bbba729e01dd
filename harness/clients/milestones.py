"""Milestones of the load that steps wait for: a number of requests in flight, and the next first token of an answer.

The load generator reports each request and each first token here. Who waits is woken in the next turn of the event loop.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from graphquake.harness.history.request import Request
from graphquake.harness.spec.steps.actions import Landed, came, in_time, too_late


@dataclass(slots=True)
class _Threshold:
    """A wait for requests in flight: the number that is wanted, the largest number so far, and the time at which it was enough."""

    wanted: int
    most: int
    reached_s: asyncio.Future[float]

    def see(self, in_flight: int) -> None:
        self.most = max(self.most, in_flight)
        if in_flight >= self.wanted and not self.reached_s.done():
            self.reached_s.set_result(time.monotonic())


@dataclass(slots=True)
class Milestones:
    """Counts the requests in flight, and wakes the steps that wait for a milestone.

    Attributes:
        in_flight: the number of requests that were sent and have not ended.
    """

    in_flight: int = 0
    _thresholds: list[_Threshold] = field(default_factory=list)
    _tokens: list[asyncio.Future[tuple[float, Request]]] = field(default_factory=list)

    def sent(self) -> None:
        """Note that a request is sent."""
        self.in_flight += 1
        for one in self._thresholds:
            one.see(self.in_flight)

    def ended(self) -> None:
        """Note that a request has ended."""
        self.in_flight -= 1

    def first_token(self, request: Request) -> None:
        """Note the first token of an answer. `request.first_s` is set."""
        for one in self._tokens:
            if not one.done():
                one.set_result((time.monotonic(), request))

    async def until_in_flight(self, requests: int, within_s: float) -> Landed:
        """See `Clients.until_in_flight`."""
        begun_s = time.monotonic()
        wait = _Threshold(requests, 0, asyncio.get_running_loop().create_future())
        wait.see(self.in_flight)
        self._thresholds.append(wait)
        try:
            at_s = await in_time(wait.reached_s, within_s)
        finally:
            self._thresholds.remove(wait)
        if at_s is None:
            return too_late(f"at most {wait.most} in flight within {within_s:g} s")
        return came(f"{wait.most} in flight", at_s, begun_s)

    async def until_first_token(self, within_s: float) -> Landed:
        """See `Clients.until_first_token`."""
        begun_s = time.monotonic()
        token: asyncio.Future[tuple[float, Request]] = asyncio.get_running_loop().create_future()
        self._tokens.append(token)
        try:
            got = await in_time(token, within_s)
        finally:
            self._tokens.remove(token)
        if got is None:
            return too_late(f"no first token within {within_s:g} s")
        at_s, request = got
        after = f"{(request.first_s - request.sent_s) * 1e3:.0f} ms after it was sent"
        return came(f"first token of request {request.number}, {after}", at_s, begun_s)

"""Requests whose clients left stay booked. With three of them the frontend refuses every second request.

Modelled on dynamo 12315: bookings leak after clients left; later 97% of the requests get a 429 until a restart.

In: frontend
Breaks: throughput
Plan: burst 5 over 0.00 s, 100% leave
"""

from __future__ import annotations

import itertools
import sys

from aiohttp import web

from graphquake.harness.reference.frontend import Frontend, Refused
from graphquake.harness.reference.node import main

MANY = 3


class Bug(Frontend):
    """Keeps the booking of each request whose client left."""

    booked = 0
    number = itertools.count()

    def leave(self) -> None:
        """Count the request as ended. Keep its booking if the client left."""
        super().leave()
        self.booked += sys.exc_info()[0] not in (None, Refused)

    async def answer(self, request: web.Request, kind: str) -> web.StreamResponse:
        """Refuse every second request once too many bookings were kept."""
        if self.booked >= MANY and next(self.number) % 2:
            return web.json_response({"error": "too many requests"}, status=429)
        return await super().answer(request, kind)


if __name__ == "__main__":
    main(Bug)

"""Notice an API server that is too slow to judge a graph by.

Clients and probes may reach the pods through the API server. If it is slow, so are all answers, and the graph looks as if it had hung. So a
small question is put to the API server again and again. No part of the graph takes part in its answer.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final, NamedTuple

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.targets.target import SLOW_WAY

# The pause between two questions, in seconds.
EVERY_S: Final = 0.3
# An answer that takes longer than this, in seconds, makes violations doubtful. It is a third of the silence that `ends` allows by default.
# An API server that is not overloaded answers in milliseconds.
SLOW_S: Final = 1.0


class Slow(NamedTuple):
    """A question whose answer took too long.

    Attributes:
        since_s: the monotonic time at which it was put.
        cause: what it means for a run, in words.
    """

    since_s: float
    cause: str


class Pulse:
    """Measures how fast an API server answers.

    Args:
        client: the API server.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._asked_s: float | None = None
        self._slow: Slow | None = None

    @property
    def slow(self) -> Slow | None:
        """The first question since `begin_run` whose answer took or takes longer than `SLOW_S`, or None."""
        if self._slow is None and self._asked_s is not None:
            self._note(self._asked_s)
        return self._slow

    def begin_run(self) -> None:
        """Forget earlier answers."""
        self._slow = None

    async def beat(self) -> None:
        """Put questions until this task is cancelled. A refusal is an answer, too."""
        while True:
            self._asked_s = time.monotonic()
            with suppress(ApiError):
                await self._client.request("GET", "/version")
            self._note(self._asked_s)
            self._asked_s = None
            await asyncio.sleep(EVERY_S)

    def _note(self, asked_s: float) -> None:
        took_s = time.monotonic() - asked_s
        if self._slow is None and took_s > SLOW_S:
            self._slow = Slow(asked_s, f"{SLOW_WAY}: the API server took {took_s:.1f} s to answer")

"""A decode worker dies when the reader of its tokens disconnects.

Modelled on dynamo PR 8254: a connection reset panics the reader, and every request of that worker is lost.

In: decode
Breaks: blast_radius
Plan: kill processor 0
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator

from graphquake.harness.reference.node import main
from graphquake.harness.reference.wire import Call, Gone
from graphquake.harness.reference.worker import Worker


class Bug(Worker):
    """Ends when a caller disconnects."""

    async def stream(self, call: Call, tokens: AsyncGenerator[int]) -> None:
        """Exit if the caller is gone."""
        try:
            await super().stream(call, tokens)
        except (Gone, asyncio.CancelledError):
            os._exit(1)


if __name__ == "__main__":
    main(Bug)

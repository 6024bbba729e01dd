"""A decode worker dies when whoever takes its tokens hangs up.

Modelled on dynamo PR 8254: a connection reset panics the reader, every request of that worker is lost.

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
    """Panics."""

    async def stream(self, call: Call, tokens: AsyncGenerator[int]) -> None:
        """A caller that is gone is the end of all."""
        try:
            await super().stream(call, tokens)
        except (Gone, asyncio.CancelledError):
            os._exit(1)


if __name__ == "__main__":
    main(Bug)

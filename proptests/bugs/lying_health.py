"""A worker whose engine is dead reports that it is healthy, and its requests hang.

Modelled on vllm 39863 and PR 21728: the engine is dead, /health returns 200, requests hang; also sglang 6624.

In: prefill, decode
Breaks: ends, recovery, throughput, views_agree
Plan: kill prefill 0 rank
"""

from __future__ import annotations

import asyncio

from graphquake.harness.reference.node import main
from graphquake.harness.reference.wire import Call, Gone, Message
from graphquake.harness.reference.worker import Worker


class Bug(Worker):
    """Reports that it is healthy, even if its engine is dead."""

    def health(self) -> str:
        """Report no problem."""
        return ""

    async def work(self) -> None:
        """Do not end when the engine ends."""
        await asyncio.Event().wait()

    async def on_call(self, call: Call, message: Message) -> None:
        """Treat a dead engine like a busy one."""
        try:
            await super().on_call(call, message)
        except Gone:
            await asyncio.Event().wait()


if __name__ == "__main__":
    main(Bug)

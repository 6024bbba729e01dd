"""A decode worker continues a sequence whose client left, up to the end of its context.

Modelled on sglang 36333: zombie decode work piles up after disconnects; also dynamo 13691.

In: decode
Breaks: no_leak
Plan: burst 5 over 0.00 s, 100% leave
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import aclosing

from graphquake.harness.reference.node import main
from graphquake.harness.reference.wire import Call, Message
from graphquake.harness.reference.worker import Worker

FAR = 1900


class Bug(Worker):
    """Continues the work for clients that left."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.zombies: set[asyncio.Task[None]] = set()

    async def decode(self, call: Call, message: Message) -> None:
        """Decode to the requested length, and further without a client."""
        kv = await self.fetch(message)
        made: asyncio.Queue[int] = asyncio.Queue()
        work = asyncio.ensure_future(self.go_on(made, kv, message["token"]))
        self.zombies.add(work)
        for _ in range(message["count"]):
            await call.send({"token": await made.get()})
        work.cancel()

    async def go_on(self, made: asyncio.Queue[int], kv: bytes, token: int) -> None:
        """Decode until the context is full."""
        async with aclosing(self.engine.decode(kv, token, FAR)) as tokens:
            async for one in tokens:
                made.put_nowait(one)


if __name__ == "__main__":
    main(Bug)

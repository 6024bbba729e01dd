"""After a connection was reset in mid-body, the processor asks again as if no token had come. So tokens are sent twice.

Modelled on clients that retry a request whose connection was reset, although a part of the answer was passed on already.

In: processor
Breaks: answers
Graph: network = "namespaces"
Plan: reset decode 0 from processor 0
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from graphquake.harness.reference.node import main
from graphquake.harness.reference.processor import BACKOFF_S, Busy, Failed, Processor

RESET = "Errno 104"


class Bug(Processor):
    """Remembers the tokens of an attempt only if the attempt did not end with a reset."""

    async def generate(self, prompt: Sequence[int], count: int) -> AsyncGenerator[int]:
        """Yield the tokens that follow a prompt."""
        done: list[int] = []
        while len(done) < count:
            fresh: list[int] = []
            try:
                async with aclosing(self.attempt([*prompt, *done], count - len(done))) as tokens:
                    async for token in tokens:
                        fresh.append(token)
                        yield token
            except Busy:
                if not done:
                    raise
                await asyncio.sleep(BACKOFF_S)
            except Failed as failed:
                if RESET in str(failed):
                    fresh = []
                await asyncio.sleep(BACKOFF_S)
            done += fresh


if __name__ == "__main__":
    main(Bug)

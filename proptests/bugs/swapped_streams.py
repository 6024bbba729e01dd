"""Two streams that migrate at the same time continue as the same stream. The race needs two in-flight requests on the victim.

Modelled on dynamo 14456: at 2,048 concurrent requests, 170 ids are duplicates, and one request has the state of another.

In: processor
Breaks: answers
Graph: load.max_tokens = 20
Plan: kill decode 1
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from graphquake.harness.reference.node import main
from graphquake.harness.reference.processor import BACKOFF_S, Failed, Processor


class Bug(Processor):
    """Keeps the state of all migrating streams in one place."""

    resume: tuple[int, ...] = ()

    async def generate(self, prompt: Sequence[int], count: int) -> AsyncGenerator[int]:
        """Resume from the stream that failed last."""
        done: list[int] = []
        while len(done) < count:
            try:
                async with aclosing(self.attempt([*prompt, *done], count - len(done))) as made:
                    async for token in made:
                        done.append(token)
                        yield token
            except Failed:
                self.resume = tuple(done)
                await asyncio.sleep(BACKOFF_S)
                done = list(self.resume)


if __name__ == "__main__":
    main(Bug)

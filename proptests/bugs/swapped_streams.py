"""Two streams that migrate at the same time go on as the same one: a race, which needs two in flight on the victim.

Modelled on dynamo 14456: at 2,048 concurrent requests 170 duplicate ids: state of one request in another.

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
    """Keeps what a stream resumes from where the others do."""

    resume: tuple[int, ...] = ()

    async def generate(self, prompt: Sequence[int], count: int) -> AsyncGenerator[int]:
        """The last one to fail decides for all that back off."""
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

"""A migrated stream loses the token that was in flight.

Modelled on dynamo PR 8254: a connection reset panics the reader, and the data in it is lost.

In: processor
Breaks: answers
Plan: kill decode 0
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from graphquake.harness.reference.node import main
from graphquake.harness.reference.processor import Failed, Processor


class Bug(Processor):
    """Counts a token as sent that the client never got."""

    async def generate(self, prompt: Sequence[int], count: int) -> AsyncGenerator[int]:
        """Yield the tokens. After a failed attempt, make the next token but do not yield it."""
        done: list[int] = []
        while len(done) < count:
            try:
                async with aclosing(self.attempt([*prompt, *done], count - len(done))) as made:
                    async for token in made:
                        done.append(token)
                        yield token
            except Failed:
                if done:
                    done += [token async for token in super().generate([*prompt, *done], 1)]


if __name__ == "__main__":
    main(Bug)

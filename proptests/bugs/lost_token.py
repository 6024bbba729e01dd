"""A migrated stream goes on one token too late: the token that was on its way is lost.

Modelled on dynamo PR 8254: a connection reset panics the reader, what was in it is lost.

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
    """Counts a token as sent that was not."""

    async def generate(self, prompt: Sequence[int], count: int) -> AsyncGenerator[int]:
        """The next token after a failure is made and not sent."""
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

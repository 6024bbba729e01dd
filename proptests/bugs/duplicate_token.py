"""A migrated stream sends its last token a second time.

Modelled on dynamo 14456: at 2,048 concurrent requests, tokens that were sent are sent again.

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
    """Sends the last token again after a migration."""

    async def generate(self, prompt: Sequence[int], count: int) -> AsyncGenerator[int]:
        """Yield the tokens. After a failed attempt, yield the last token again."""
        done: list[int] = []
        while len(done) < count:
            try:
                async with aclosing(self.attempt([*prompt, *done], count - len(done))) as made:
                    async for token in made:
                        done.append(token)
                        yield token
            except Failed:
                if done:
                    yield done[-1]


if __name__ == "__main__":
    main(Bug)

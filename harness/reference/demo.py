"""The processor of `graphquake demo`: the reference graph's processor with one planted bug.

When a decode worker dies, its streams migrate to another worker. This processor then counts one token as sent that it did not send. The
stream continues after that token. The client gets HTTP 200 and a text in which one token is missing.

The bug is modelled on dynamo PR 8254, in which a connection reset loses the data that was being read.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from graphquake.harness.reference.node import main
from graphquake.harness.reference.processor import Failed, Processor


class DemoProcessor(Processor):
    """Loses one token of each stream that migrates."""

    async def generate(self, prompt: Sequence[int], count: int) -> AsyncGenerator[int]:
        """Yield the tokens that follow a prompt.

        The bug: if an attempt fails after the first token of the answer, the next token is made but not yielded.
        """
        done: list[int] = []
        while len(done) < count:
            try:
                async with aclosing(self.attempt([*prompt, *done], count - len(done))) as tokens:
                    async for token in tokens:
                        done.append(token)
                        yield token
            except Failed:
                if done:
                    done += [token async for token in super().generate([*prompt, *done], 1)]


if __name__ == "__main__":
    main(DemoProcessor)

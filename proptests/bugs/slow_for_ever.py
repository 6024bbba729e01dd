"""After a burst that overloads it, a processor is slow for as long as requests keep coming.

Modelled on tokenspeed PR 1427: a burst over the capacity of decoding turns 35 s of work into 1,392 s.

In: processor
Breaks: collapse
Graph: promises.collapse.within_s = 1
Plan: burst 40 over 0.00 s
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from graphquake.harness.reference.node import main
from graphquake.harness.reference.processor import Processor

TOO_MANY = 30
CALM_PER_S = 5
SLOW_S = 0.06


class Bug(Processor):
    """Never catches up."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.came: deque[float] = deque(maxlen=CALM_PER_S)
        self.overloaded = False

    async def generate(self, prompt: Sequence[int], count: int) -> AsyncGenerator[int]:
        """Be slow with each token while overloaded. It stays overloaded until hardly any request comes."""
        now_s = time.monotonic()
        calm = len(self.came) < CALM_PER_S or now_s - self.came[0] > 1
        self.came.append(now_s)
        self.overloaded = self.in_flight > TOO_MANY or (self.overloaded and not calm)
        async with aclosing(super().generate(prompt, count)) as tokens:
            async for token in tokens:
                if self.overloaded:
                    await asyncio.sleep(SLOW_S)
                yield token


if __name__ == "__main__":
    main(Bug)

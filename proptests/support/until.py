"""Wait for what other processes and tasks bring about. Each wait ends as soon as it can, so its limit only ends a test that hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

# More than the start of a few Python processes takes on a busy machine, in seconds.
HOLDS_WITHIN_S: Final = 30.0
T = TypeVar("T")


async def until(holds: Callable[[], object], within_s: float = HOLDS_WITHIN_S) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: if it does not hold within `within_s` seconds.
    """
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


def when(ask: Callable[[], T], good: Callable[[T], object], within_s: float = 60.0) -> T:
    """Ask again and again until an answer is good, and return it. An answer that is not good after `within_s` seconds fails the test."""
    until_s = time.monotonic() + within_s
    while not good(answer := ask()):
        assert time.monotonic() < until_s, answer
        time.sleep(0.1)
    return answer

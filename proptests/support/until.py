"""Wait for what other processes and tasks bring about. Each wait ends as soon as it can, so its limit only ends a test that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

# More than the start of a few Python processes takes on a busy machine, in seconds.
HOLDS_WITHIN_S: Final = 30.0


async def until(holds: Callable[[], object], within_s: float = HOLDS_WITHIN_S) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: if it does not hold within `within_s` seconds.
    """
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)

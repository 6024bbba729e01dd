"""Slots for runs in one event loop: at most so many run at once, in the order in which they asked. A run can ask to be alone.

A run that somebody waits for goes before those that wait their turn (`urgent`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class SlotQueue:
    """Lets runs begin while slots are free.

    Args:
        slots: the number of slots.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._running = 0
        # Runs that hold a slot, and that wait until all others have ended.
        self._want_alone = 0
        self._is_alone = False
        self._urgent = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def slots(self) -> int:
        """The number of slots. If it becomes smaller, the runs in progress go on."""
        return self._slots

    @slots.setter
    def slots(self, slots: int) -> None:
        self._slots = slots
        self._wake()

    @asynccontextmanager
    async def one(self, *, urgent: bool = False) -> AsyncIterator[None]:
        """Hold a slot in this block. The block begins when a slot is free, and when no run is alone or waits to be alone.

        Args:
            urgent: if true, this run goes before all waiting runs that are not urgent.
        """
        self._urgent += urgent
        try:
            await self._until(lambda: self._is_free() and (urgent or not self._urgent))
        finally:
            self._urgent -= urgent
            # If this run was cancelled, the runs that let it go first may begin now.
            self._wake()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._wake()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Be the only run in this block. Use it in a block of `one`, while its run does nothing."""
        self._running -= 1
        self._want_alone += 1
        self._wake()
        try:
            await self._until(lambda: not self._running)
        finally:
            self._running += 1
            self._want_alone -= 1
            self._wake()
        self._is_alone = True
        try:
            yield
        finally:
            self._is_alone = False
            self._wake()

    def _is_free(self) -> bool:
        return self._running < self._slots and not self._want_alone and not self._is_alone

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

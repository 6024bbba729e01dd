"""The slots of runs: the most that run at once, their order, and a run that is alone."""

from __future__ import annotations

import asyncio

import pytest

from graphquake.machines.runners.slot_queue import SlotQueue

pytestmark = pytest.mark.simulated


class Runs:
    """Runs that each hold a slot until they are told to end."""

    def __init__(self, slots: int) -> None:
        self.queue = SlotQueue(slots)
        self.began: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, *names: str, alone: bool = False, urgent: bool = False) -> None:
        """Let runs begin. With `alone`, each is repeated alone: it is called `NAME alone` then."""
        for name in names:
            self.ends |= {name: asyncio.Event(), f"{name} alone": asyncio.Event()}
            self.tasks[name] = asyncio.create_task(self._run(name, alone=alone, urgent=urgent))
        await self.settle()

    async def end(self, name: str) -> None:
        """Let a run end."""
        self.ends[name].set()
        await self.settle()

    async def cancel(self, name: str) -> None:
        """Cancel a run."""
        self.tasks[name].cancel()
        await self.settle()

    async def settle(self) -> None:
        """Let all tasks go on until they wait."""
        for _ in range(10):
            await asyncio.sleep(0)

    async def _run(self, name: str, *, alone: bool, urgent: bool) -> None:
        async with self.queue.one(urgent=urgent):
            self.began.append(name)
            await self.ends[name].wait()
            if alone:
                async with self.queue.alone():
                    self.began.append(f"{name} alone")
                    await self.ends[f"{name} alone"].wait()


def test_runs_begin_in_the_order_in_which_they_asked() -> None:
    """At most `slots` runs hold a slot, and the next one begins when one ends. The number may change meanwhile."""

    async def use() -> None:
        runs = Runs(2)
        await runs.begin("a", "b", "c", "d", "e")
        assert runs.began == ["a", "b"]
        await runs.end("b")
        assert runs.began == ["a", "b", "c"]
        runs.queue.slots = 1
        await runs.end("a")
        assert runs.began == ["a", "b", "c"]
        await runs.cancel("d")
        await runs.end("c")
        assert runs.began == ["a", "b", "c", "e"]

    asyncio.run(use())


def test_a_run_that_is_alone_waits_for_the_others() -> None:
    """It begins when the others have ended, and no new run begins before its end. Two that want to be alone take turns."""

    async def use() -> None:
        runs = Runs(2)
        await runs.begin("a", "b", alone=True)
        await runs.begin("c")
        await runs.end("a")
        assert runs.began == ["a", "b"]
        await runs.end("b")
        assert runs.began == ["a", "b", "b alone"]
        await runs.end("b alone")
        assert runs.began == ["a", "b", "b alone", "a alone"]
        await runs.end("a alone")
        assert runs.began[4:] == ["c"]

    asyncio.run(use())


def test_a_cancelled_wait_gives_the_slots_back() -> None:
    """Runs that are cancelled while they wait to be alone, or while they are, block nobody."""

    async def use() -> None:
        runs = Runs(2)
        await runs.begin("a", "b", alone=True)
        await runs.begin("c", "d")
        await runs.end("a")
        await runs.cancel("a")
        assert runs.began == ["a", "b", "c"]
        await runs.end("b")
        await runs.end("c")
        assert runs.began[3:] == ["b alone"]
        await runs.cancel("b")
        assert runs.began[4:] == ["d"]

    asyncio.run(use())


def test_an_urgent_run_goes_first() -> None:
    """An urgent run begins before runs that asked earlier. A cancelled urgent run holds no other run back."""

    async def use() -> None:
        runs = Runs(1)
        await runs.begin("a", "b")
        await runs.begin("c", "d", urgent=True)
        await runs.end("a")
        assert runs.began == ["a", "c"]
        await runs.cancel("d")
        await runs.end("c")
        assert runs.began == ["a", "c", "b"]

    asyncio.run(use())

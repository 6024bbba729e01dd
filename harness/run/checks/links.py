"""The checks of faults of the network. Requests are sent meanwhile, because such a fault lands with the first packet that meets it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from graphquake.harness.clients.load import Load
from graphquake.harness.run.checks.common import check_landed, life_of, must
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import FaultOfEdges, NetworkFault
from graphquake.harness.targets.target import Target

# The time limit for the first packet that meets a fault, and the time for which the fault then acts.
MEETS_WITHIN_S: Final = 5.0
DISTURBED_S: Final = 0.3
# The number of clients, and the pause between two requests of one.
CLIENTS: Final = 4
ASK_EVERY_S: Final = 0.02


@asynccontextmanager
async def asking(target: Target) -> AsyncIterator[None]:
    """Let some clients send requests, one after the other, until the context ends. Raise no error in it: a task group would wrap it."""
    sockets = target.socket_factory
    begun_s = time.monotonic()
    async with Load(target.spec, target.entries(), begun_s, [], socket_factory=sockets) as load:

        async def ask() -> None:
            while True:
                await load.ask_once()
                await asyncio.sleep(ASK_EVERY_S)

        tasks = [asyncio.get_running_loop().create_task(ask()) for _ in range(CLIENTS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def link(kind: FaultOfEdges, value: float) -> Callable[[Target, Replica], Awaitable[str]]:
    """The check of a fault between a replica and all others: packets meet it, it ends nothing, and its end shows what it did."""

    async def check(target: Target, victim: Replica) -> str:
        others = [one for one in target.spec.replicas() if one != victim]
        edges = [edge for one in others for edge in ((victim, one), (one, victim))]
        fault = NetworkFault(kind, value, tuple(edges))
        lives = {one: life_of(target, one) for one in target.spec.replicas()}
        begun_s = time.monotonic()
        async with asking(target):
            landed = await target.network.begin(1, fault, MEETS_WITHIN_S)
            await asyncio.sleep(DISTURBED_S if landed.ok else 0)
            ended = await target.network.end(1, fault, 0.0)
        check_landed(landed, begun_s)
        must(ended.ok and ended.proof, f"the end of the fault did not land: {ended.proof}")
        now = {one: life_of(target, one) for one in target.spec.replicas()}
        must(now == lives, "the fault began a new life")
        return f"{landed.proof}; {ended.proof}"

    return check


async def missed(target: Target, victim: Replica) -> str:
    """Negative control: a fault that no packet meets has not landed. Nobody sends packets to its own address through the network."""
    fault = NetworkFault("cut", 0.0, ((victim, victim),))
    landed = await target.network.begin(1, fault, DISTURBED_S)
    must(not landed.ok, "a fault that no packet can meet has landed")
    ended = await target.network.end(1, fault, 0.0)
    must(ended.ok, f"the end of a fault that did not land is not ok: {ended.proof}")
    return landed.proof

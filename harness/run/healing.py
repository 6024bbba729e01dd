"""Find the replicas that are down, and start them again.

Two callers need this: the `heal` phase of a run, and a graph that is made ready for its next run.
"""

from __future__ import annotations

import asyncio

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.respawn import bring_back
from graphquake.harness.targets.target import Landed, Target


def replicas_down(target: Target) -> list[Replica]:
    """Return the replicas that are dead or shutting down, in the order of the graph file."""
    return [one for one in target.spec.replicas() if target.ending(one) or not target.alive(one)]


async def bring_back_all(target: Target, down: list[Replica]) -> list[tuple[Replica, Landed]]:
    """Start these replicas again, all at once, and return what became of each."""
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(bring_back(target, one)) for one in down]
    return [(one, task.result()) for one, task in zip(down, started, strict=True)]

"""Find the replicas that are down, and start them again.

The `heal` phase of a run does this, and so does `reuse` before it lends a graph to the next run.
"""

from __future__ import annotations

import asyncio

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.processes.respawn import bring_back
from graphquake.harness.targets.target import Landed, Target


def replicas_down(target: Target) -> list[Replica]:
    """Return the replicas that are dead or shutting down, in the order of the graph file."""
    return [one for one in target.spec.replicas() if target.ending(one) or not target.alive(one)]


async def bring_back_all(target: Target, down: list[Replica]) -> list[tuple[Replica, Landed]]:
    """Start replicas again, all at the same time.

    Args:
        target: the live graph.
        down: the replicas to start. One that still shuts down is awaited first, and killed if it takes longer than its `stop_s`.

    Returns:
        Each replica, with the proof that its start landed or did not land.
    """
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(bring_back(target, one)) for one in down]
    return [(one, task.result()) for one, task in zip(down, started, strict=True)]

"""Find the replicas that are down, and start them again.

Two callers need this: the `heal` phase of a run, and a graph that is made ready for its next run.
"""

from __future__ import annotations

import asyncio

from graphquake.harness.run.steps import bring_back
from graphquake.harness.targets.target import Landed, Target, replica_name


def replicas_down(target: Target) -> list[tuple[str, int]]:
    """Return role and index of each replica that is dead or shutting down, in the order of the graph file."""
    return [
        (role, index)
        for role, index in target.spec.replicas()
        if target.ending(name := replica_name(role, index)) or not target.alive(name)
    ]


async def bring_back_all(
    target: Target, down: list[tuple[str, int]]
) -> list[tuple[tuple[str, int], Landed]]:
    """Start these replicas again, all at once, and return what became of each."""
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(bring_back(target, role, index)) for role, index in down]
    return [(one, task.result()) for one, task in zip(down, started, strict=True)]

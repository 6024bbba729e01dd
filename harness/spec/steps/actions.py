"""The things that a step can do to a live graph.

A target implements `Actions`, so a new ability is declared here once. All times are absolute `time.monotonic()` seconds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.scope import Scope
from graphquake.harness.spec.steps.model import Graph


@dataclass(frozen=True, slots=True)
class Landed:
    """The effect of an action, as it was seen.

    Attributes:
        ok: True if the action took effect.
        proof: the observation, in words.
        at_s: when it took effect.
    """

    ok: bool
    proof: str
    at_s: float


def landed_now(proof: str) -> Landed:
    """An action that takes effect at once."""
    return Landed(ok=True, proof=proof, at_s=time.monotonic())


class Actions(Protocol):
    """The things that steps can do to a graph, and those that they need to see of it."""

    @property
    def spec(self) -> Graph:
        """The graph."""
        ...

    def ending(self, replica: Replica) -> bool:
        """True while the replica shuts down: it got SIGTERM, or a child that it depends on was killed, and it has not exited yet."""
        ...

    async def gone(self, replica: Replica, within_s: float) -> bool:
        """Wait until the replica's main process is gone. False if it still runs after `within_s` seconds."""
        ...

    async def kill(self, replica: Replica, scope: Scope) -> Landed:
        """Send SIGKILL, and wait until every process in the scope is gone."""
        ...

    async def terminate(self, replica: Replica) -> Landed:
        """Send SIGTERM to the main process. Does not wait for its end."""
        ...

    async def stall(self, replica: Replica) -> Landed:
        """Send SIGSTOP to all processes of the replica, and wait until each is stopped."""
        ...

    async def resume(self, replica: Replica) -> Landed:
        """Send SIGCONT to all processes of the replica, and wait until none is stopped. Lands as well if the replica has died."""
        ...

    async def respawn(self, replica: Replica) -> Landed:
        """Start a dead replica again."""
        ...

    async def wait_ready(self, within_s: float) -> bool:
        """Wait until every live replica is ready and the graph lists at least as many replicas as live.

        It may list more: a graph with leases lists a killed replica until its lease ends. While a replica is dead that others need to
        become listed, e.g. a registry, this may give up sooner than after `within_s` seconds.
        """
        ...


class BurstLike(Protocol):
    """The numbers of a burst. `Burst` has them."""

    @property
    def requests(self) -> int:
        """The number of requests."""
        ...

    @property
    def over_s(self) -> float:
        """The time over which they are sent, in seconds."""
        ...

    @property
    def leave(self) -> float:
        """The share of the clients that leave after the first token, 0 to 1."""
        ...


class Clients(Protocol):
    """The load generator, as far as steps use it."""

    def burst(self, step: int, burst: BurstLike) -> None:
        """Begin to send a burst."""
        ...


@dataclass(frozen=True, slots=True)
class Scene:
    """The place where a step is carried out.

    Attributes:
        number: the place of the step in its plan, from 0.
        target: the live graph.
        clients: the load generator.
    """

    number: int
    target: Actions
    clients: Clients

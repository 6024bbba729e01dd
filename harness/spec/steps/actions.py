"""The actions that a step can take on a live graph.

Every target implements the protocol `Actions`. A new action is declared here first. All times are absolute `time.monotonic()` seconds.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol, TypeVar

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.model import Graph
from graphquake.harness.spec.steps.scope import Scope

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Landed:
    """The observed effect of an action.

    Attributes:
        ok: true if the action took effect.
        proof: the observation that shows whether the action took effect, in words.
        at_s: the time at which the action took effect, in `time.monotonic()` seconds.
        missed: true if the action waited for an event that did not come in its time.
    """

    ok: bool
    proof: str
    at_s: float
    missed: bool = False


def landed_now(proof: str) -> Landed:
    """Return the effect of an action that takes effect now, with its proof in words."""
    return Landed(ok=True, proof=proof, at_s=time.monotonic())


def came(what: str, at_s: float, begun_s: float) -> Landed:
    """Return the result of a wait for an event that came.

    Args:
        what: the event, in words.
        at_s: the time of the event.
        begun_s: the time at which the wait began.
    """
    waited_ms = max(0.0, at_s - begun_s) * 1e3
    return Landed(ok=True, proof=f"{what}, {waited_ms:.0f} ms after the wait began", at_s=at_s)


def too_late(why: str) -> Landed:
    """Return the result of a wait for an event that did not come in its time, with the reason in words."""
    return Landed(ok=False, proof=why, at_s=time.monotonic())


async def in_time(event: asyncio.Future[T], within_s: float) -> T | None:
    """Return the result of an event, or None if it does not come within `within_s` seconds."""
    done, _ = await asyncio.wait([event], timeout=within_s)
    return event.result() if done else None


class OwnActions(Protocol):
    """The actions on a live graph that a step from the graph file (`[steps.NAME]`) can take."""

    async def signal(self, replica: Replica, name: str, *, is_fault: bool) -> Landed:
        """Send a signal to the main process of a replica.

        Args:
            replica: the replica.
            name: the name of the signal, e.g. `SIGUSR2`.
            is_fault: true if the process may end by the signal.
        """
        ...

    async def command(self, key: str, part: str, aim: Replica | None) -> Landed:
        """Run a command of a step, and wait for its end. It lands if its exit status is 0. A command that takes too long is killed.

        Args:
            key: `step NUMBER NAME`: the step and its place in the plan.
            part: `do`, `proof` or `undo`.
            aim: the replica that the step aims at, if it aims at one.
        """
        ...

    async def end_commands(self, key: str) -> None:
        """Kill every process that the commands of a step have left."""
        ...


class Moments(Protocol):
    """The events of a live graph's replicas that a step can wait for. Each method returns at the event, within milliseconds.

    The result is ok if the event came within `within_s` seconds. Its proof names the event.
    """

    async def started(self, replica: Replica, within_s: float) -> Landed:
        """Wait until a new incarnation of the replica has been spawned. If it runs and is not ready yet, it counts as started."""
        ...

    async def logged(self, replica: Replica, text: str, within_s: float) -> Landed:
        """Wait until a new line of the replica's log holds a text. Blanks between words count as one."""
        ...


class Actions(Protocol):
    """The actions that steps can take on a live graph, and the questions that steps can ask about the graph."""

    @property
    def spec(self) -> Graph:
        """The graph's properties from its file."""
        ...

    def ending(self, replica: Replica) -> bool:
        """True while the replica shuts down: it got SIGTERM, or a child that it depends on was killed, and its main process still runs."""
        ...

    async def gone(self, replica: Replica, within_s: float) -> bool:
        """Wait until the replica's main process is gone. Return false if that process still runs after `within_s` seconds."""
        ...

    async def kill(self, replica: Replica, scope: Scope) -> Landed:
        """Send SIGKILL to every process in the scope, and wait until all of them are gone."""
        ...

    async def terminate(self, replica: Replica) -> Landed:
        """Send SIGTERM to the main process of a replica. Do not wait until the process ends."""
        ...

    async def stall(self, replica: Replica) -> Landed:
        """Send SIGSTOP to all processes of the replica, and wait until each is stopped."""
        ...

    async def resume(self, replica: Replica) -> Landed:
        """Send SIGCONT to all processes of the replica, and wait until none is stopped. If the replica has died, the action is ok, too."""
        ...

    async def respawn(self, replica: Replica) -> Landed:
        """Start a dead replica again, and wait until it has a new pid. Do not wait until it is ready."""
        ...

    @property
    def own(self) -> OwnActions:
        """What the user's own steps can do."""
        ...

    @property
    def moments(self) -> Moments:
        """The events that steps can wait for."""
        ...

    async def wait_ready(self, within_s: float) -> bool:
        """Wait until every live replica is ready and the graph lists at least as many replicas as live.

        The graph may list more: if it has leases, it lists a killed replica until the lease ends. New replicas can't be listed while a
        registry is dead. In that case the wait may end before `within_s` seconds are over.

        Returns:
            True if the state was reached.
        """
        ...


class BurstLike(Protocol):
    """A burst of requests, as the load generator sees it: how many, over which time, how many leave. The step `Burst` is one."""

    @property
    def requests(self) -> int:
        """The number of requests in the burst."""
        ...

    @property
    def over_s(self) -> float:
        """The time over which the requests are sent, in seconds."""
        ...

    @property
    def leave(self) -> float:
        """The share of the clients that close the connection after the first token, 0 to 1."""
        ...

    @property
    def leave_at_once(self) -> float:
        """The share of the clients that close the connection before the first token, 0 to 1."""
        ...

    @property
    def refused(self) -> float:
        """The share of the clients whose prompts are longer than the model's context, 0 to 1."""
        ...


class Clients(Protocol):
    """The part of the load generator that steps use."""

    def burst(self, step: int, burst: BurstLike) -> None:
        """Begin to send a burst of requests, and return at once.

        Args:
            step: the place of the burst in its plan, from 0.
            burst: the numbers of the burst.
        """
        ...

    async def until_in_flight(self, requests: int, within_s: float) -> Landed:
        """Wait until at least so many requests are in flight. The result is ok if that happened within `within_s` seconds."""
        ...

    async def until_first_token(self, within_s: float) -> Landed:
        """Wait until a client gets the first token of a streamed answer. The result is ok if that happened within `within_s` seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Scene:
    """The context in which a step runs: its place in the plan, the live graph, and the load generator.

    Attributes:
        number: the place of the step in its plan, from 0.
        target: the live graph.
        clients: the load generator.
    """

    number: int
    target: Actions
    clients: Clients

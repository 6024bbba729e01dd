"""The actions that a step can take on a live graph.

Every target implements the protocol `Actions`. A new action is declared here first. All times are absolute `time.monotonic()` seconds.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, TypeVar

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
        told: the time at which each replica was told to end, if the action told several, one after the other. Each of these times is then
            a disturbance, in place of the whole time of the action.
    """

    ok: bool
    proof: str
    at_s: float
    missed: bool = False
    told: tuple[tuple[float, Replica], ...] = ()


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


# The resources that a squeeze can take from a replica.
Squeezable: TypeAlias = Literal["cpu", "memory", "files", "disk", "gpu memory", "gpu compute"]


class ResourceActions(Protocol):
    """The actions on a live graph that take resources from a replica."""

    async def squeeze(
        self, replica: Replica, what: Squeezable, amount: int, for_s: float
    ) -> Landed:
        """Leave a replica only a little of a resource, and wait until that has an effect.

        Args:
            replica: the replica.
            what: the resource.
            amount: how much the replica still gets: of `cpu` the share of one core in percent, of `memory` MiB more than it has,
                of `gpu memory` the MiB of its GPU that stay free.
            for_s: the time after which `release` is called, in seconds. A process that takes the resource ends soon after that by itself.
        """
        ...

    async def release(self, replica: Replica, what: Squeezable) -> Landed:
        """Give the resource back. If the replica has died, the action is ok, too."""
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


FaultOfEdges: TypeAlias = Literal["cut", "reset", "lose", "slow", "delay"]


@dataclass(frozen=True, slots=True)
class NetworkFault:
    """One fault of the network.

    Attributes:
        kind: `cut` drops all packets, `reset` ends connections with RST, `lose` drops a share, `slow` limits the rate, `delay` adds a time.
        value: the share (0 to 1) for `lose`, bytes per second for `slow`, seconds for `delay`. 0 for the others.
        edges: the directions that it acts on: the sender and the receiver of each.
    """

    kind: FaultOfEdges
    value: float
    edges: tuple[tuple[Replica, Replica], ...]


class NetworkActions(Protocol):
    """The faults of the network between the replicas of a live graph. Clients and probes are not affected."""

    async def begin(self, key: int, fault: NetworkFault, within_s: float) -> Landed:
        """Begin a fault, and wait until the first packet meets it, or until connections have ended. It goes on until `end`.

        Args:
            key: a number for `end`. No other fault that acts now has it.
            fault: the fault.
            within_s: the time limit for the first packet. 0 for a reset that ends the open connections once, and needs no `end`.
        """
        ...

    async def end(self, key: int, fault: NetworkFault, settles_s: float) -> Landed:
        """End a fault. The proof tells the packets that met it. If it had no effect, the action is not ok.

        Args:
            key: the number of the fault.
            fault: the fault.
            settles_s: the time for which connections may suffer after it.
        """
        ...


class ClusterActions(Protocol):
    """The actions on the objects of a cluster that stand behind the replicas."""

    async def scale(self, role: str, replicas: int) -> Landed:
        """Give a role fewer or more replicas, and wait until its controller has deleted or created pods. It lasts until `unscale`."""
        ...

    async def unscale(self, role: str) -> Landed:
        """Give a role its former number of replicas back. Wait until pods are deleted, but not until others are there.

        If another user has changed it, this is not ok.
        """
        ...

    async def rollout(self, role: str) -> Landed:
        """Restart all replicas of a role by its controller, and wait until each has a new incarnation that is ready."""
        ...

    async def cordon(self, replica: Replica) -> Landed:
        """Let the node of a replica take no new pods. It lasts until `uncordon`."""
        ...

    async def uncordon(self, replica: Replica) -> Landed:
        """End the `cordon` that was begun at this replica. If another user has changed the node, this is not ok."""
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

    async def interrupt(self, replica: Replica) -> Landed:
        """Send SIGINT to the main process of a replica. Do not wait until the process ends."""
        ...

    async def stall(self, replica: Replica, scope: Scope) -> Landed:
        """Send SIGSTOP to every process in the scope, and wait until each is stopped. No other process of the replica may be stopped."""
        ...

    async def resume(self, replica: Replica) -> Landed:
        """Send SIGCONT to all processes of the replica, and wait until none is stopped. If the replica has died, the action is ok, too."""
        ...

    async def respawn(self, replica: Replica) -> Landed:
        """Start a dead replica again, and wait until it has a new pid. Do not wait until it is ready."""
        ...

    async def delete(self, replica: Replica, grace_s: int | None) -> Landed:
        """Delete the pod of a replica. Do not wait for the end of its processes.

        Args:
            replica: the replica.
            grace_s: the time from SIGTERM to SIGKILL, in seconds. 0 for a forced delete, None for the time in the pod's own spec.
        """
        ...

    def use(self, replica: Replica, variant: str) -> None:
        """Let the next incarnations of a replica run another command of the graph file, the variant with this name of its role."""
        ...

    @property
    def own(self) -> OwnActions:
        """What the user's own steps can do."""
        ...

    @property
    def resources(self) -> ResourceActions:
        """What squeezes can do."""
        ...

    @property
    def network(self) -> NetworkActions:
        """The faults of the network."""
        ...

    @property
    def cluster(self) -> ClusterActions:
        """What steps can do to the objects of a cluster."""
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

    @property
    def leave_later(self) -> float:
        """The share of the clients that close the connection after the token `at_token`, 0 to 1."""
        ...

    @property
    def at_token(self) -> int:
        """The number of tokens after which these clients leave."""
        ...

    @property
    def malformed(self) -> float:
        """The share of the clients whose requests are malformed, 0 to 1."""
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

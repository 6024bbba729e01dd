"""Slots on the nodes of a Ray cluster. The only module that knows Ray.

Ray chooses the nodes and reserves cores and GPUs. It does not decide which slots are lost: it notices a node that is cut off only after a
minute, and the children of its workers can outlive them. Heartbeats and the guard decide it (see `node`).

Ray is imported only here, and only when a user asks for it.
"""

from __future__ import annotations

import asyncio
import importlib
import math
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from graphquake.harness.errors import InputError
from graphquake.harness.history.host import Host
from graphquake.harness.run.status import RunStatus
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.on_ray.node import NodeSlot
from graphquake.machines.runners.on_ray.option import OnRay
from graphquake.machines.runners.on_ray.parcels import pack_graph
from graphquake.machines.runners.on_ray.places import Delivery, NoPlace, Order, Slot, SlotLost
from graphquake.machines.runners.on_ray.ray_runner import RayRunner
from graphquake.machines.runners.run_observer import RunObserver
from graphquake.machines.runners.runner import RunResult

# The longest wait for a slot, in seconds: Ray starts a process that imports Graphquake.
OPEN_WITHIN_S: Final = 60.0
# The longest wait for a connection to the address of a cluster, in seconds.
REACHED_WITHIN_S: Final = 5.0


def connect(asked: OnRay) -> Any:
    """Connect this process to the cluster, or start one on this machine. Return the module `ray`.

    Raises:
        InputError: if Ray is not installed, or no cluster answers at the address.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise InputError(
            f"--chaos-slots {asked}: Ray is not installed; pip install 'graphquake[ray]'"
        ) from None
    if ray.is_initialized():
        return ray
    check_reachable(asked)
    local: dict[str, Any] = {}
    if not asked.address:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local = {"include_dashboard": False}
    try:
        ray.init(
            address=asked.address or "local",
            log_to_driver=False,
            logging_level="ERROR",
            configure_logging=False,
            **local,
        )
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        why = str(error).strip().splitlines()[0]
        raise InputError(f"--chaos-slots {asked}: no Ray cluster answers there: {why}") from None
    return ray


def check_reachable(asked: OnRay) -> None:
    """Check that something listens at the address. Ray itself would try for a long time, and then might end this process.

    Raises:
        InputError: if nothing does, or the address has no port.
    """
    host, _, port = asked.address.removeprefix("ray://").rpartition(":")
    if asked.address in {"", "auto", "local"}:
        return
    if not host or not port.isdecimal():
        raise InputError(f"--chaos-slots {asked}: expected an address such as 10.0.0.7:6379")
    try:
        socket.create_connection((host, int(port)), REACHED_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"--chaos-slots {asked}: no Ray cluster answers there: {why}") from None


def gpus_of(spec: GraphSpec, *, any_gpus: bool) -> int:
    """The number of GPUs that Ray reserves for a graph. Roles with `cpu_ok` need none in a cluster without GPUs."""
    roles = [role for role in spec.roles if role.gpus and (any_gpus or not role.cpu_ok)]
    return sum(role.gpus * role.replicas for role in roles)


def check_room(spec: GraphSpec, asked: OnRay) -> int:
    """Check that the nodes of the cluster have enough cores and GPUs for the slots. Return the number of GPUs of each slot.

    Raises:
        InputError: if there is no cluster, or it has too few cores or GPUs.
    """
    if spec.cluster is not None:
        raise InputError(
            f"--chaos-slots {asked}: {spec.path.name} has a table [kubernetes], expected a graph that is launched: "
            "the API server reaches all pods from here"
        )
    ray = connect(asked)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = gpus_of(spec, any_gpus=any(node.get("GPU") for node in nodes))
    room = room_for(nodes, asked.cores, gpus)
    if room < asked.slots:
        with_gpus = f" and {_count(gpus, 'GPU')}" if gpus else ""
        raise InputError(
            f"--chaos-slots {asked}: the cluster has room for {_count(room, 'slot')} of {_count(asked.cores, 'core')}{with_gpus} each; "
            f"its nodes have {_resources(nodes)}"
        )
    return gpus


def room_for(nodes: list[dict[str, float]], cores: float, gpus: int) -> int:
    """The number of slots that fit on nodes.

    Args:
        nodes: for each node, its resources by Ray's names.
        cores, gpus: what one slot needs.
    """

    def fits(node: dict[str, float]) -> int:
        by_cores = math.floor(node.get("CPU", 0.0) / cores)
        return min(by_cores, math.floor(node.get("GPU", 0.0) / gpus)) if gpus else by_cores

    return sum(map(fits, nodes))


def _resources(nodes: list[dict[str, float]]) -> str:
    return "; ".join(
        f"{_count(one.get('CPU', 0), 'core')}, {_count(one.get('GPU', 0), 'GPU')}" for one in nodes
    )


def _count(count: float, what: str) -> str:
    return f"{count:g} {what}{'s' * (count != 1)}"


def name_of(node_id: str, nodes: list[dict[str, Any]]) -> str:
    """The name of a node: its host name, followed by its address and the start of its id as far as others have the same.

    Args:
        node_id: the id that Ray gave to the node.
        nodes: all nodes, as `ray.nodes()` lists them.
    """
    own = next(one for one in nodes if one["NodeID"] == node_id)
    others = [one for one in nodes if one["NodeID"] != node_id and one["Alive"]]
    name = str(own["NodeManagerHostname"])
    others = [one for one in others if one["NodeManagerHostname"] == name]
    if not others:
        return name
    name = f"{name}/{own['NodeManagerAddress']}"
    same = any(one["NodeManagerAddress"] == own["NodeManagerAddress"] for one in others)
    return f"{name}/{node_id[:6]}" if same else name


# The names of Ray's errors, and their meaning for a slot. Ray's own texts contain ids, so that no two are the same.
_WHY: Final = {
    "ActorDiedError": "its process died",
    "ActorUnavailableError": "it can't be reached",
    "NodeDiedError": "its node died",
    "ObjectLostError": "its node died before the run had come back",
    "OwnerDiedError": "its node died before the run had come back",
}


def why_lost(error: Exception) -> str:
    """The reason in words why Ray's error means that a slot is lost. The summary counts losses by their reasons."""
    names = (one.__name__ for one in type(error).__mro__)
    known = next((_WHY[name] for name in names if name in _WHY), None)
    return known or f"Ray reports {type(error).__name__}"


class _Actor(NodeSlot):
    """The slot as a Ray actor, which also knows its node."""

    async def node_id(self) -> str:
        """The id that Ray gave to the node."""
        ray: Any = importlib.import_module("ray")
        return str(ray.get_runtime_context().get_node_id())


def ray_runner(
    asked: OnRay,
    spec: GraphSpec,
    folder: Path,
    budget: Budget,
    *,
    watch: Callable[[Plan, str, RunStatus], None] | None = None,
    observers: Sequence[RunObserver] = (),
    put_away: Callable[[RunResult], None] | None = None,
    slots: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> RayRunner:
    """Return a runner with slots on a Ray cluster. The arguments are those of `LiveRunner`.

    Args:
        asked: what the user asked for.
        slots: the number of slots. None means as many as the user asked for.

    Raises:
        InputError: if there is no cluster, or it has too little room.
    """
    asked = replace(asked, slots=slots or asked.slots)
    gpus = check_room(spec, asked)
    return RayRunner(
        spec, folder, budget, RayPlaces(spec, asked, gpus), slots=asked.slots, gpus=gpus,
        watch=watch, observers=observers, put_away=put_away, say=say,
    )  # fmt: skip


class RayPlaces:
    """The nodes of a Ray cluster, as `places.Places`.

    Args:
        spec: the graph.
        asked: what the user asked for.
        gpus: the number of GPUs of each slot.

    Raises:
        InputError: if there is no cluster, or the folder of the graph file is too large.
    """

    def __init__(self, spec: GraphSpec, asked: OnRay, gpus: int) -> None:
        self._ray = connect(asked)
        self._spec = spec
        self._files = self._ray.put(pack_graph(spec.path))
        self._actor = self._ray.remote(_Actor).options(
            num_cpus=asked.cores, num_gpus=gpus, max_restarts=0, scheduling_strategy="SPREAD"
        )

    async def open(self) -> Slot:
        """See `Places.open`."""
        actor = self._actor.remote(self._spec, self._files, sys.executable)
        slot = _RaySlot(self._ray, actor)
        try:
            await asyncio.wait_for(slot.open(), OPEN_WITHIN_S)
        except TimeoutError:
            slot.kill()
            raise NoPlace(
                f"no node has room for one more slot within {OPEN_WITHIN_S:g} s"
            ) from None
        except BaseException:
            slot.kill()
            raise
        return slot


class _RaySlot:
    """One actor, as `places.Slot`."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self.host = Host()
        self._ray, self._actor = ray, actor

    async def open(self) -> None:
        """Wait until the actor runs, and ask for the facts about its node."""
        node_id = await self._answer(self._actor.node_id.remote())
        name = name_of(node_id, self._ray.nodes())
        self.host = await self._answer(self._actor.open.remote(name))

    async def run(self, order: Order) -> Delivery | None:
        """See `Slot.run`."""
        delivery: Delivery | None = await self._answer(self._actor.run.remote(order))
        return delivery

    async def heartbeat(self) -> RunStatus | None:
        """See `Slot.heartbeat`."""
        status: RunStatus | None = await self._answer(self._actor.heartbeat.remote())
        return status

    async def stop(self) -> None:
        """See `Slot.stop`."""
        await self._answer(self._actor.stop.remote())

    async def leave(self) -> None:
        """See `Slot.leave`."""
        try:
            await self._answer(self._actor.leave.remote())
        finally:
            self.kill()

    def kill(self) -> None:
        """End the process of the actor."""
        self._ray.kill(self._actor, no_restart=True)

    async def _answer(self, ref: Any) -> Any:
        """Wait for an answer of the actor.

        Raises:
            SlotLost: if the actor is gone.
        """
        errors = self._ray.exceptions
        try:
            return await ref
        except errors.RayTaskError as error:
            # The error of our own code in the actor, as it was raised there.
            raise error.cause from None
        except errors.RayError as error:
            raise SlotLost(why_lost(error)) from None

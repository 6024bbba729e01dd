"""A simulated cluster for slots on Ray: its nodes and slots answer at once, and fail as a test says."""

from __future__ import annotations

import asyncio
import io
import tarfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graphquake.harness.history.host import Host
from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.run.status import RunStatus
from graphquake.harness.spec.graph import GraphSpec
from graphquake.machines.runners.on_ray.places import Delivery, Failed, NoPlace, Order, SlotLost
from graphquake.machines.runners.runner import RunResult

from support.made import Made


@dataclass
class SimSlot:
    """A slot on a node. A run takes no time, unless the test holds the node."""

    host: Host
    cluster: SimCluster
    is_left: bool = False
    stopped: int = 0
    _held: asyncio.Event | None = None

    async def run(self, order: Order) -> Delivery | None:
        """Make a run. Its folder on the node does not exist here."""
        node = self.host.node
        self.cluster.asked.append((node, order))
        if (reason := self.cluster.breaks.pop((node, len(self.cluster.asked)), None)) is not None:
            self.cluster.down.add(node)
            raise SlotLost(reason)
        if node in self.cluster.held:
            self._held = asyncio.Event()
            await self._held.wait()
            return None
        await asyncio.sleep(0.01)
        return self.cluster.deliver(order, self.host)

    async def heartbeat(self) -> RunStatus | None:
        """Answer, unless the node is cut off or down."""
        if self.host.node in self.cluster.cut:
            await asyncio.Event().wait()
        if self.host.node in self.cluster.down:
            raise SlotLost("the process died")
        return None

    async def stop(self) -> None:
        """End the run that is held."""
        self.stopped += 1
        if self._held is not None:
            self._held.set()

    async def leave(self) -> None:
        """Note that the slot has ended."""
        self.is_left = True
        await self.stop()


@dataclass
class SimCluster:
    """A cluster with some nodes, each with room for a number of slots.

    Attributes:
        room: node -> the number of slots that it has room for.
        breaks: (node, number of the order) -> the reason for which this order ends the node.
        opens_max: after this many slots, the next one opens never.
        lost_early: so many slots are lost while they open.
        cut, down, held: the nodes that are cut off, that are down, and whose runs last until they are stopped.
    """

    spec: GraphSpec
    room: dict[str, int]
    breaks: dict[tuple[str, int], str] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    down: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    opens_max: int = 1000
    lost_early: int = 0
    fails: Failed | None = None
    disturbed: tuple[Any, ...] = ()
    slots: list[SimSlot] = field(default_factory=list)
    asked: list[tuple[str, Order]] = field(default_factory=list)

    async def open(self) -> SimSlot:
        """Open a slot on the node with the most room."""
        await asyncio.sleep(0)
        if len(self.slots) >= self.opens_max:
            await asyncio.Event().wait()
        if self.lost_early:
            self.lost_early -= 1
            raise SlotLost("its process died")
        node = max(self.room, key=lambda one: self.room[one] * (one not in self.down))
        if node in self.down or not self.room[node]:
            raise NoPlace("no node has room for one more slot")
        self.room[node] -= 1
        self.slots.append(SimSlot(Host(cores=4, node=node), self))
        return self.slots[-1]

    def deliver(self, order: Order, host: Host) -> Delivery:
        """A kept run of the plan, made at another place with another graph file."""
        made = Made(self.spec, order.run.plan).steady(0.0, 1.0)
        made.phase("heal", 1.1).phase("recover", 1.2).steady(1.2, 2.5)
        there = replace(self.spec, path=Path("/node/graph.toml"))
        history = replace(made.history(), spec=there, host=host)
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            info = tarfile.TarInfo("logs/decode-0.log")
            info.size = 5
            tar.addfile(info, io.BytesIO(b"hello"))
        if self.fails is not None:
            return Delivery(self.fails, out.getvalue())
        result = RunResult(
            order.run.plan, judged_wrong(), history, 3.0, Path("/node/runs/0001"), start_s=0.1, disturbed=self.disturbed
        )  # fmt: skip
        return Delivery(result, out.getvalue())


def judged_wrong() -> Any:
    """A verdict that the history does not support: the driver judges on its own."""
    return Verdict("invalid", causes=("a node that judges wrongly",))

"""The network of one launched graph: that of the machine, or one of its own with a namespace for each replica, and its faults.

The hub sends the packets of disturbed edges through a program (see `wire`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from graphquake.harness.observation.sock_diag import SockDiag
from graphquake.harness.processes.guard_client import Guard
from graphquake.harness.processes.layout import Layout
from graphquake.harness.processes.network.client import Hub
from graphquake.harness.processes.network.link_faults import PING_WITHIN_S, Edges, LinkFaults
from graphquake.harness.processes.signals import not_landed
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, NetworkFault
from graphquake.harness.targets.target import SocketFactory

# The variables of the harness's environment that the hub needs to import its modules.
_PASSED_ON: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
NOT_THERE: Final = 'the graph file says network = "host"'


class _HubLinks:
    """Lets the hub carry out rules: the `Links` of a launched graph."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._met: dict[int, asyncio.Future[float]] = {}

    async def begin(self, key: int, fault: NetworkFault, edges: Edges) -> float:
        """See `Links.begin`."""
        self._met[key] = self._hub.met(key)
        begun_s: float = await self._hub.ask("begin", key, fault.kind, fault.value, edges)
        return begun_s

    async def met(self, key: int, within_s: float) -> float | None:
        """See `Links.met`."""
        met = self._met.pop(key)
        done, _ = await asyncio.wait([met], timeout=within_s)
        self._hub.forget(key)
        return met.result() if done else None

    async def end(self, key: int, edges: Edges) -> dict[str, float]:
        """See `Links.end`."""
        self._hub.forget(key)
        counts: dict[str, float] = await self._hub.ask("end", key, edges)
        return counts

    async def destroy(self, pairs: Edges) -> int:
        """See `Links.destroy`."""
        ended: int = await self._hub.ask("destroy", pairs)
        return ended

    async def round_trips(self, edges: Edges) -> list[float]:
        """See `Links.round_trips`."""
        asked: list[Any] = [self._hub.ask("ping", *edge, PING_WITHIN_S) for edge in edges]
        return list(await asyncio.gather(*asked))


class Network:
    """The network of one graph. `NetworkActions` describes what the faults do.

    Args:
        layout: the replicas of the graph.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._hub = Hub() if layout.spec.network == "namespaces" else None
        self._faults = LinkFaults(_HubLinks(self._hub)) if self._hub else None

    @property
    def socket_factory(self) -> SocketFactory | None:
        """See `Target.socket_factory`."""
        return None if self._hub is None else self._hub.socket_factory

    @property
    def own(self) -> Sequence[str]:
        """The paths of the namespaces from which each replica can be reached, for commands."""
        return () if self._hub is None else self._hub.own

    @property
    def is_disturbed(self) -> bool:
        """True while a fault acts on the network, or connections may still suffer from one."""
        return self._faults is not None and self._faults.is_disturbed

    async def open(self, guard: Guard, marks: Mapping[str, str]) -> dict[Replica, SockDiag]:
        """Make the namespaces of all replicas. Return the kernel's table of TCP sockets of each. Empty if the graph has no namespaces.

        Args:
            guard: the guard of the graph.
            marks: the marks of the graph's processes.

        Raises:
            GraphError: if the machine can't have the namespaces.
        """
        if self._hub is None:
            return {}
        env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        replicas = list(self._layout.replicas.values())
        hosts = [one.host for one in replicas]
        await self._hub.open(guard, {**env, **marks}, self._layout.run_dir, hosts)
        for one in replicas:
            one.spaces = self._hub.namespaces[one.host]
        return {one.name: await self._hub.diag(one.host) for one in replicas}

    def close(self) -> None:
        """Close the connections to the hub. The guard ends the hub."""
        if self._hub is not None:
            self._hub.close()

    async def begin(self, key: int, fault: NetworkFault, within_s: float) -> Landed:
        """See `NetworkActions.begin`."""
        if self._faults is None:
            return not_landed(NOT_THERE)
        edges = [[self._host(source), self._host(to)] for source, to in fault.edges]
        return await self._faults.begin(key, fault, edges, within_s)

    async def end(self, key: int, fault: NetworkFault, settles_s: float) -> Landed:
        """See `NetworkActions.end`."""
        if self._faults is None:
            return Landed(ok=True, proof="nothing to undo", at_s=time.monotonic())
        return await self._faults.end(key, fault, settles_s)

    def _host(self, replica: Replica) -> str:
        return self._layout.replicas[replica].host

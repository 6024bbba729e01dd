"""The faults of the network between the pods of a graph, carried out by the agents in the network namespaces of the pods.

An edge is a direction between two pods, by their IPv4 addresses. The agent of the sender's node takes the packets. A packet to the address
of a Service has another destination when it leaves the pod, so only its answer is taken. A pod that begins during a fault is free of it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from graphquake.harness.errors import InputError
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.node.agents import Agents
from graphquake.harness.kubernetes.pods import Pod
from graphquake.harness.kubernetes.verbs import NEEDS_NODE, not_landed
from graphquake.harness.processes.network.link_faults import (
    PING_WITHIN_S,
    PINGS_MAX,
    Edges,
    LinkError,
    LinkFaults,
)
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, NetworkFault

# The time limit of a round trip that tells whether round trips can be measured between two pods at all.
TRY_WITHIN_S: Final = 0.5


def address_of(pod: Pod) -> str | None:
    """Return the IPv4 address of a pod, or None if it has none."""
    status = pod.item.get("status") or {}
    every = [one.get("ip", "") for one in status.get("podIPs") or []] or [status.get("podIP", "")]
    for one in every:
        with suppress(ValueError):
            return str(ipaddress.IPv4Address(one))
    return None


class _PodLinks:
    """Lets the agents carry out rules: the `Links` of a graph in a cluster."""

    def __init__(self, agents: Agents, present: Callable[[Pod], bool]) -> None:
        self._agents = agents
        self.present = present
        self.pods: dict[str, Pod] = {}
        self._begun: dict[int, list[str]] = {}
        self._answers: dict[tuple[str, str], bool] = {}

    async def ask(self, address: str, do: str, **asked: Any) -> Any:
        """Give an order to the network of a pod, and return its result."""
        pod = self.pods[address]
        container = pod.container_id.rpartition("/")[2]
        try:
            session = await self._agents.at(pod.item["spec"].get("nodeName", ""))
            said = await session.ask(do, pod=pod.uid, container=container, address=address, **asked)
        except ApiError as error:
            raise LinkError(str(error)) from None
        if not said.ok:
            raise LinkError(f"pod {pod.name}: {said.proof}")
        return said.result

    async def begin(self, key: int, fault: NetworkFault, edges: Edges) -> float:
        """See `Links.begin`."""
        await self.round_trips(edges[:PINGS_MAX])
        begun = self._begun[key] = []
        for source in dict.fromkeys(source for source, _ in edges):
            to = list(dict.fromkeys(to for one, to in edges if one == source))
            try:
                await self.ask(source, "begin", key=key, kind=fault.kind, value=fault.value, to=to)
            except LinkError:
                await self.end(key, edges)
                raise
            begun.append(source)
        return time.monotonic()

    async def met(self, key: int, within_s: float) -> float | None:
        """See `Links.met`."""

        async def one(source: str) -> float | None:
            ago_s: float = await self.ask(source, "met", key=key, within_s=within_s)
            return None if ago_s < 0 else time.monotonic() - ago_s

        tasks = [asyncio.ensure_future(one(source)) for source in self._begun[key]]
        try:
            for next_one in asyncio.as_completed(tasks):
                if (at_s := await next_one) is not None:
                    return at_s
            return None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def end(self, key: int, edges: Edges) -> dict[str, float]:
        """See `Links.end`. The counters of all senders are added up."""
        del edges
        asked = (self.ask(source, "end", key=key) for source in self._begun.pop(key))
        every: list[dict[str, float]] = await asyncio.gather(*asked)
        names = {name for counts in every for name in counts}
        return {name: sum(one[name] for one in every) for name in names} | {"at_s": time.monotonic()}  # fmt: skip

    async def destroy(self, pairs: Edges) -> int:
        """See `Links.destroy`. Each pair is tried from both ends, because one end may know the other one as a Service."""
        ended = 0
        for at, other in [*pairs, *(pair[::-1] for pair in pairs)]:
            ended += await self.ask(at, "destroy", to=[other])
        return ended

    async def round_trips(self, edges: Edges) -> list[float]:
        """See `Links.round_trips`. An edge without an answer to the first try can't be measured. Nor can one whose pod is gone."""
        shown = [(source, to) for source, to in edges]
        there = [edge for edge in shown if all(self.present(self.pods[one]) for one in edge)]
        new = [edge for edge in there if edge not in self._answers]
        tried_s = await asyncio.gather(*(self._ping(edge, TRY_WITHIN_S) for edge in new))
        self._answers |= {edge: took_s >= 0 for edge, took_s in zip(new, tried_s, strict=True)}
        known = [edge for edge in there if self._answers[edge]]
        return list(await asyncio.gather(*(self._ping(edge, PING_WITHIN_S) for edge in known)))

    async def _ping(self, edge: tuple[str, str], within_s: float) -> float:
        source, to = edge
        took_s: float = await self.ask(source, "ping", to=to, within_s=within_s)
        return took_s


class PodFaults:
    """See `NetworkActions`.

    Args:
        agents: the agents of the graph, or None if it has none.
        pod: returns the pod of a replica that runs, or None.
    """

    def __init__(self, agents: Agents | None, pod: Callable[[Replica], Pod | None]) -> None:
        self._pod = pod
        self._owners: dict[str, Replica] = {}
        self._links = _PodLinks(agents, self._is_there) if agents else None
        self._faults = LinkFaults(self._links) if self._links else None

    @property
    def is_disturbed(self) -> bool:
        """True while a fault acts on the network, or connections may still suffer from one."""
        return self._faults is not None and self._faults.is_disturbed

    async def check(self, source: str, replicas: Iterable[Replica]) -> None:
        """Check that the agents can disturb the network of each pod, so that no fault fails later.

        Raises:
            InputError: if they can't. The text begins with `source` and gives the reason.
        """
        for replica in replicas:
            try:
                address = self._known(replica)
                if self._links and address:
                    await self._links.ask(address, "can")
            except LinkError as error:
                raise InputError(f'{source}: network is "namespaces", but {replica}: {error}') from None  # fmt: skip

    async def beat(self) -> None:
        """Nothing is in the cluster that has a record. The agents have theirs."""

    async def close(self) -> None:
        """Nothing is left to undo: the agents end every fault when they end."""

    async def begin(self, key: int, fault: NetworkFault, within_s: float) -> Landed:
        """See `NetworkActions.begin`. Replicas without a pod have no network now."""
        if self._faults is None:
            return not_landed(f"the network: {NEEDS_NODE}")
        try:
            pairs = [(self._known(source), self._known(to)) for source, to in fault.edges]
        except LinkError as error:
            return not_landed(str(error))
        edges = [[source, to] for source, to in pairs if source and to]
        if not edges:
            return not_landed("at most one end of the link runs")
        return await self._faults.begin(key, fault, edges, within_s)

    async def end(self, key: int, fault: NetworkFault, settles_s: float) -> Landed:
        """See `NetworkActions.end`."""
        if self._faults is None:
            return Landed(ok=True, proof="nothing to undo", at_s=time.monotonic())
        return await self._faults.end(key, fault, settles_s)

    def _is_there(self, pod: Pod) -> bool:
        """True if a pod is still that of the same replica."""
        now = self._pod(self._owners[pod.uid])
        return now is not None and now.uid == pod.uid

    def _known(self, replica: Replica) -> str | None:
        """Return the address of a replica's pod, and remember the pod. None if the replica does not run."""
        pod = self._pod(replica)
        if pod is None or self._links is None:
            return None
        address = address_of(pod)
        if address is None:
            raise LinkError(f"pod {pod.name} has no IPv4 address")
        self._links.pods[address] = pod
        self._owners[pod.uid] = replica
        return address

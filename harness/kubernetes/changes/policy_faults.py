"""Cuts between the pods of a graph by NetworkPolicies, for clusters without an agent.

The proof is a new connection. Before the cut, a pod can open it. During the cut it gets no answer. After the end it works again. A refusal
is a proof only if the port still answers within its own pod. A network plugin that ignores policies makes the fault miss, so the run is
invalid. Open connections may survive a cut: that depends on the plugin.

A cut in one direction only prevents the connections that the first end opens. A pod that begins during a cut is free of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, NamedTuple

from graphquake.harness.errors import InputError
from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.changes.new_connections import connect
from graphquake.harness.kubernetes.changes.policies import Edge, Policies, addresses_of, shares
from graphquake.harness.kubernetes.pods import Pod
from graphquake.harness.kubernetes.verbs import not_landed
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, NetworkFault

# The time limits for a network plugin to follow a new policy, and its removal.
LANDS_WITHIN_S: Final = 5.0
HEALS_WITHIN_S: Final = 10.0
PAUSE_S: Final = 0.1
# The most connections that are tried for one fault.
TRIES_MAX: Final = 4
ONLY_CUTS: Final = "a NetworkPolicy can only cut"
NOT_ENFORCED: Final = "The network plugin does not enforce it, or another policy allows it"


class Try(NamedTuple):
    """A new connection that was possible before a fault: between which pods, and to which port."""

    source: str
    to: str
    port: int


class PolicyFaults:
    """See `NetworkActions`. Run `beat` in the background, and `close` it.

    Args:
        spec: the graph.
        client: the API server.
        namespace: the namespace of the graph.
        pod: returns the pod of a replica that runs, or None.
    """

    def __init__(
        self,
        spec: GraphSpec,
        client: Client,
        namespace: str,
        pod: Callable[[Replica], Pod | None],
    ) -> None:
        self._spec = spec
        self._client = client
        self._pod = pod
        self._policies = Policies(client, namespace)
        self._owners: dict[str, Replica] = {}
        # For each fault, the edges that the policy of each pod closes, and the connections that prove it.
        self._parts: dict[int, dict[str, frozenset[Edge]]] = {}
        self._tries: dict[int, list[Try]] = {}
        self._settled_s = 0.0

    @property
    def is_disturbed(self) -> bool:
        """True while a fault acts on the network, or connections may still suffer from one."""
        return bool(self._parts) or time.monotonic() < self._settled_s

    # -------------------------------------------------------------------------------------------------- the faults

    async def check(self, source: str, replicas: Iterable[Replica]) -> None:
        """Check that each pod can be cut off, and that the rights suffice, by dry runs. So no fault fails later.

        Raises:
            InputError: if a pod can't be cut off. The text begins with `source` and gives the reason.
        """
        try:
            pods = {one: pod for one in replicas if (pod := self._known(one))}
            said = await self._refused(pods.values())
            for role in self._spec.roles:
                pod = next((pod for one, pod in pods.items() if one.role == role.name), None)
                if pod is not None and not said:
                    await self._policies.dry_run(pod)
                    await connect(self._client, pod, addresses_of(pod)[0], self._ports(role.name))
        except ApiError as error:
            said = str(error)
        if said:
            raise InputError(f'{source}: network is "policies", but {said}')

    async def begin(self, key: int, fault: NetworkFault, within_s: float) -> Landed:
        """See `NetworkActions.begin`. The time limit is that of network plugins: the fault is not over before it begins."""
        del within_s
        if fault.kind != "cut":
            return not_landed(f"{fault.kind}: {ONLY_CUTS}")
        try:
            landed = await self._begin(key, fault)
            if not landed.ok:
                await self._release(key)
        except ApiError as error:
            with suppress(ApiError):
                await self._release(key)
            return not_landed(str(error))
        return landed

    async def _begin(self, key: int, fault: NetworkFault) -> Landed:
        pairs = [(self._known(source), self._known(to)) for source, to in fault.edges]
        edges = [(source.uid, to.uid) for source, to in pairs if source and to]
        if not edges:
            return not_landed("at most one end of the link runs")
        parts = shares(edges)
        if said := await self._refused(self._policies.pods[pod] for pod in parts):
            return not_landed(said)
        # Edges that another fault cuts already have its proof.
        known = [one for tries in self._tries.values() for one in tries if one[:2] in edges]
        tries = [*known, *await self._possible(parts)]
        if not tries:
            return not_landed("no new connection between their pods was possible before, so none can prove a cut")  # fmt: skip
        self._parts[key], self._tries[key] = parts, tries
        await self._follow()
        made_s = time.monotonic()
        while not all(await asyncio.gather(*map(self._is_cut, tries))):
            if time.monotonic() > made_s + LANDS_WITHIN_S:
                said = f"still works {LANDS_WITHIN_S:g} s after the policy was made. {NOT_ENFORCED}"
                return not_landed(f"{self._text(tries)} {said}")
            await asyncio.sleep(PAUSE_S)
        at_s = time.monotonic()
        proof = f"{self._text(tries)} worked before, and no longer works {(at_s - made_s) * 1e3:.0f} ms after the policy was made"
        return Landed(ok=True, proof=proof, at_s=at_s)

    async def end(self, key: int, fault: NetworkFault, settles_s: float) -> Landed:
        """See `NetworkActions.end`."""
        del fault
        if key not in self._parts:
            return Landed(ok=True, proof="nothing to undo", at_s=time.monotonic())
        tries = self._tries[key]
        try:
            await self._release(key)
            begun_s = time.monotonic()
            said = await self._healed(tries)
        except ApiError as error:
            return not_landed(str(error))
        at_s = time.monotonic()
        self._settled_s = max(self._settled_s, at_s + settles_s)
        if said is None:
            late = f"does not work {HEALS_WITHIN_S:g} s after the policy was removed"
            return not_landed(f"the link did not heal: {self._text(tries)} {late}")
        took = f", {(at_s - begun_s) * 1e3:.0f} ms later {said} works again" if said else ""
        return Landed(ok=True, proof=f"the policy is removed{took}", at_s=at_s)

    # --------------------------------------------------------------------------------------------------- the proof

    def _known(self, replica: Replica) -> Pod | None:
        """Return the pod of a replica that runs, and remember it."""
        pod = self._pod(replica)
        if pod is not None and addresses_of(pod):
            self._owners[pod.uid] = replica
            self._policies.pods[pod.uid] = pod
            return pod
        return None

    def _ports(self, role: str) -> list[int]:
        pods = self._spec.role(role).pods
        return list(dict.fromkeys(pods.ports.values())) if pods else []

    def _text(self, tries: Iterable[Try]) -> str:
        pods = self._policies.pods
        each = (f"{pods[one.source].name} to {pods[one.to].name} port {one.port}" for one in tries)
        return f"a new connection from {', and from '.join(each)}"

    async def _possible(self, parts: dict[str, frozenset[Edge]]) -> list[Try]:
        """Return the connections that are possible now: at most one for each direction of each policy."""
        asked: dict[tuple[str, bool], Edge] = {}
        for pod, closed in parts.items():
            for edge in sorted(closed - self._cut()):
                if self._ports(self._owners[edge[1]].role):
                    asked.setdefault((pod, edge[0] == pod), edge)

        async def one(source: str, to: str) -> Try | None:
            there = addresses_of(self._policies.pods[to])[0], self._ports(self._owners[to].role)
            port, outcome = await connect(self._client, self._policies.pods[source], *there)
            return Try(source, to, port) if outcome == "connected" else None

        edges = list(dict.fromkeys(asked.values()))[:TRIES_MAX]
        return [found for found in await asyncio.gather(*(one(*edge) for edge in edges)) if found]

    def _cut(self) -> set[Edge]:
        """Return the edges that faults cut now."""
        return {edge for parts in self._parts.values() for edges in parts.values() for edge in edges}  # fmt: skip

    async def _is_cut(self, one: Try) -> bool:
        """True if a new connection gets no answer. A refusal counts if the port still answers within its own pod."""
        at = self._policies.pods[one.to]
        outcome = await self._tried(one)
        if outcome != "refused":
            return outcome == "silent"
        _, inside = await connect(self._client, at, addresses_of(at)[0], [one.port])
        return inside == "connected"

    async def _tried(self, one: Try) -> str:
        source, to = self._policies.pods[one.source], self._policies.pods[one.to]
        _, outcome = await connect(self._client, source, addresses_of(to)[0], [one.port])
        return outcome

    async def _healed(self, tries: list[Try]) -> str | None:
        """Wait until the connections work again. Return them in words, or None if they do not. Those whose pods are gone are left out."""
        until_s = time.monotonic() + HEALS_WITHIN_S
        while True:
            cut = self._cut()
            tries = [one for one in tries if one[:2] not in cut and all(map(self._is_there, one[:2]))]  # fmt: skip
            try:
                outcomes = await asyncio.gather(*map(self._tried, tries))
            except ApiError:
                # A pod that has just ended can't try anything.
                outcomes = ["silent"]
            if all(one == "connected" for one in outcomes):
                return self._text(tries) if tries else ""
            if time.monotonic() > until_s:
                return None
            await asyncio.sleep(PAUSE_S)

    def _is_there(self, uid: str) -> bool:
        now = self._pod(self._owners[uid])
        return now is not None and now.life == self._policies.pods[uid].life

    # ------------------------------------------------------------------------------------------------- the objects

    async def _refused(self, pods: Iterable[Pod]) -> str:
        """Return why one of the pods can't be cut off, or an empty text."""
        pods = list(pods)
        for pod in pods:
            if pod.item["spec"].get("hostNetwork"):
                return f"pod {pod.name} uses the network of its node, to which no policy applies"
        return await self._policies.other(pods)

    async def _release(self, key: int) -> None:
        """End one fault.

        Raises:
            ApiError: if the API server refuses it, or is away. `close` then tries it again, and so does the next start.
        """
        self._parts.pop(key, None)
        self._tries.pop(key, None)
        await self._follow()

    async def _follow(self) -> None:
        """Let the policies be those of the present faults."""
        wanted: dict[str, frozenset[Edge]] = {}
        for parts in self._parts.values():
            for pod, edges in parts.items():
                wanted[pod] = wanted.get(pod, frozenset()) | edges
        await self._policies.keep(wanted)

    async def beat(self) -> None:
        """Renew the records, for ever."""
        await self._policies.beat()

    async def close(self) -> None:
        """Remove everything. If the API server is away, the next start or a sweep does it."""
        self._parts.clear()
        await self._policies.close()

"""Scales, rollouts and cordons of a graph in a cluster, each with its proof.

What a scale or a cordon changes is recorded on the object itself, in the same request (see `records`), and in the journal of the run
before that. A rollout has nothing to put back: its mark stays, as after `kubectl rollout restart`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import (
    NODES,
    Json,
    Resource,
    key_of,
    name_of,
    version_of,
)
from graphquake.harness.kubernetes.changes.records import (
    BEAT_EVERY_S,
    NOTE,
    TRIES,
    Owner,
    Record,
    put_back,
)
from graphquake.harness.kubernetes.changes.workloads import Workload, workload_of
from graphquake.harness.kubernetes.consent import has_consent, no_consent_text
from graphquake.harness.kubernetes.roster import Roster
from graphquake.harness.kubernetes.verbs import SHOWN_WITHIN_S, not_landed
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import Landed

# The mark that `kubectl rollout restart` writes. Tools that keep a workload as a file says know it, and leave it.
RESTARTED: Final = "kubectl.kubernetes.io/restartedAt"
CLOSED_WITHIN_S: Final = 5.0
POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Held:
    """A change that acts on the cluster now.

    Attributes:
        resource: the kind of the object.
        item: the object.
        record: its record.
    """

    resource: Resource
    item: Json
    record: Record


class ClusterFaults:
    """See `ClusterActions`. Run `beat` in the background, and `close` it.

    Args:
        spec: the graph.
        client: the API server.
        roster: the replicas.
        within_s: the time limit for all new pods of a rollout, in seconds.
    """

    def __init__(self, spec: GraphSpec, client: Client, roster: Roster, within_s: float) -> None:
        self._spec = spec
        self._client = client
        self._roster = roster
        self._within_s = within_s
        self._owner = Owner.here()
        self._run = secrets.token_hex(4)
        self._held: dict[str, Held] = {}
        self._fewer: dict[str, int] = {}
        # The roles with more replicas than the run knows.
        self._more: dict[str, int] = {}

    def expected(self, role: str) -> int:
        """Return the number of replicas that a role should have now."""
        return self._fewer.get(role, self._spec.role(role).replicas)

    @property
    def has_more(self) -> bool:
        """True while a role has more replicas than the run knows, because of a scale."""
        return bool(self._more)

    # ------------------------------------------------------------------------------------------------------ scale

    async def scale(self, role: str, replicas: int) -> Landed:
        """See `ClusterActions.scale`."""
        count = self._spec.role(role).replicas
        gone = count - replicas
        try:
            found = await self._workload(role)
            if isinstance(found, str):
                return not_landed(found)
            if not found.scales:
                return not_landed(f"{found} has no number of replicas")
            item, was = found.item, found.item["spec"].get("replicas", 1)
            if was != count:
                return not_landed(f"{found} has {was} replicas, expected {count}")
            if gone < 0:
                return await self._scale_up(role, found, replicas)
            begun_s = time.monotonic()
            self._roster.claim(role, gone)
            held = await self._change(found.resource, item, "replicas", replicas)
            self._held[_scale_key(role)], self._fewer[role] = held, replicas
            told = await self._told(role, begun_s, gone)
            now = (await self._client.get(found.resource, *key_of(item)))["spec"].get("replicas")
        except ApiError as error:
            await self._forget(role)
            return not_landed(str(error))
        if now != replicas or len(told) < gone:
            await self._forget(role)
            why = f"another user has set it to {now}"
            if now == replicas:
                why = f"its controller deleted {len(told)} pods within {SHOWN_WITHIN_S:g} s"
            return not_landed(f"{found} scaled from {was} to {replicas}, but {why}")
        who = " and ".join(str(one) for _, one in told)
        at_s = max(at_s for at_s, _ in told)
        proof = f"{found} scaled from {was} to {replicas}: its controller deleted {who}"
        return Landed(ok=True, proof=proof, at_s=at_s, told=tuple(told))

    async def unscale(self, role: str) -> Landed:
        """See `ClusterActions.unscale`."""
        self._fewer.pop(role, None)
        count, more = self._spec.role(role).replicas, self._more.pop(role, 0)
        self._roster.claim(role, more)
        landed = await self._release(_scale_key(role))
        if not more or not landed.ok:
            return landed
        if not await _until(lambda: len(self._roster.lasting(role)) <= count, SHOWN_WITHIN_S):
            return not_landed(f"{landed.proof}, but its controller did not delete {more} pods within {SHOWN_WITHIN_S:g} s")  # fmt: skip
        return replace(landed, at_s=time.monotonic())

    async def _scale_up(self, role: str, found: Workload, replicas: int) -> Landed:
        """Give a role more replicas, and wait until its controller has created the pods."""
        before, was = self._roster.lasting(role), self._spec.role(role).replicas
        held = await self._change(found.resource, found.item, "replicas", replicas)
        self._held[_scale_key(role)], self._more[role] = held, replicas - was
        made = await _until(lambda: len(self._roster.lasting(role)) >= replicas, SHOWN_WITHIN_S)
        at_s = time.monotonic()
        now = (await self._client.get(found.resource, *key_of(found.item)))["spec"].get("replicas")
        new = " and ".join(sorted({*self._roster.lasting(role)} - {*before}))
        if now == replicas and made:
            proof = f"{found} scaled from {was} to {replicas}: its controller created pod {new}"
            return Landed(ok=True, proof=proof, at_s=at_s)
        await self._forget(role)
        why = f"its controller created only {new or 'nothing'} within {SHOWN_WITHIN_S:g} s"
        if now != replicas:
            why = f"another user has set it to {now}"
        return not_landed(f"{found} scaled from {was} to {replicas}, but {why}")

    async def _forget(self, role: str) -> None:
        self._roster.claim(role, 0)
        await self.unscale(role)

    async def _told(self, role: str, since_s: float, count: int) -> list[tuple[float, Replica]]:
        """Wait until so many replicas of a role were told to end, or until the time is over."""

        def told() -> list[tuple[float, Replica]]:
            return [one for one in self._roster.endings if one[0] >= since_s and one[1].role == role]  # fmt: skip

        await _until(lambda: len(told()) >= count, SHOWN_WITHIN_S)
        return told()

    # ---------------------------------------------------------------------------------------------------- rollout

    async def rollout(self, role: str) -> Landed:
        """See `ClusterActions.rollout`."""
        every = [one for one in self._spec.replicas() if one.role == role]
        before = {one: self._roster.life_text(one) for one in every}
        try:
            found = await self._workload(role)
            if isinstance(found, str):
                return not_landed(found)
            if why := found.why_no_restart():
                return not_landed(why)
            begun_s = time.monotonic()
            self._roster.claim(role, len(every))
            self._note(f"restarts {found}")
            mark = {RESTARTED: datetime.now(UTC).isoformat(timespec="milliseconds")}
            await self._client.patch(found.resource, *key_of(found.item), found.marked(mark))
        except ApiError as error:
            return not_landed(str(error))

        def is_new(one: Replica) -> bool:
            return self._roster.life_text(one) != before[one] and self._roster.works(one)

        all_new = await _until(lambda: all(map(is_new, every)), self._within_s)
        took_s = time.monotonic() - begun_s
        told = [one for one in self._roster.endings if one[0] >= begun_s and one[1].role == role]
        if not told:
            return not_landed(f"{found} was to restart, and deleted no pod within {took_s:.1f} s")  # fmt: skip
        lives = "; ".join(f"{before[one]} became {self._roster.life_text(one) or 'nothing'}" for one in every)  # fmt: skip
        word = "all ready" if all_new else "not all new and ready"
        proof = f"{found} restarted: {lives}; {word} after {took_s:.1f} s"
        at_s = max(at_s for at_s, _ in told)
        return Landed(ok=True, proof=proof, at_s=at_s, missed=not all_new, told=tuple(told))

    # ----------------------------------------------------------------------------------------------------- cordon

    async def cordon(self, replica: Replica) -> Landed:
        """See `ClusterActions.cordon`."""
        if (there := self._roster.running(replica)) is None:
            return not_landed(f"{replica} does not run")
        if _cordon_key(replica) in self._held:
            return not_landed(f"the node of {replica} is cordoned already")
        name = there[0].item["spec"].get("nodeName", "")
        try:
            node = await self._client.get(NODES, "", name)
            if not has_consent(node):
                return not_landed(no_consent_text("node", name))
            if node["spec"].get("unschedulable"):
                return not_landed(f"node {name} took no new pods already")
            held = await self._change(NODES, node, "unschedulable", value=True)
            self._held[_cordon_key(replica)] = held
            shown = await self._client.get(NODES, "", name)
        except ApiError as error:
            await self.uncordon(replica)
            return not_landed(str(error))
        if not shown["spec"].get("unschedulable"):
            await self.uncordon(replica)
            return not_landed(f"node {name} was cordoned, and another user has undone it")
        proof = f"the API server shows node {name} as unschedulable"
        return Landed(ok=True, proof=proof, at_s=time.monotonic())

    async def uncordon(self, replica: Replica) -> Landed:
        """See `ClusterActions.uncordon`."""
        return await self._release(_cordon_key(replica))

    # ------------------------------------------------------------------------------------------------------ records

    async def beat(self) -> None:
        """Renew the records, for ever."""
        while True:
            await asyncio.sleep(BEAT_EVERY_S)
            for held in list(self._held.values()):
                record = replace(held.record, beat_s=time.time())
                meta = {"annotations": {NOTE: record.marks(self._run)["annotations"][NOTE]}}
                # An API server that is away hears of it later.
                with suppress(ApiError):
                    await self._client.patch(held.resource, *key_of(held.item), {"metadata": meta})

    async def close(self) -> None:
        """Put everything back. If the API server is away, the next start or a sweep does it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSED_WITHIN_S):
                for key in list(self._held):
                    await self._release(key)

    async def _workload(self, role: str) -> Workload | str:
        pod, cluster = self._roster.a_pod(role), self._spec.cluster
        if pod is None:
            return "no pod is there"
        return await workload_of(self._client, pod, cluster.deployment if cluster else "")

    async def _change(self, resource: Resource, item: Json, key: str, value: Any) -> Held:
        """Change one value of `spec`, together with its record. The journal says so first."""
        name = name_of(item)
        for left in reversed(range(TRIES)):
            was = item["spec"].get(key)
            self._note(f"sets {key} of {resource.kind} {name} from {was} to {value}")
            record = Record(key, was, value, self._owner, time.time())
            meta = {**record.marks(self._run), "resourceVersion": version_of(item)}
            change = {"metadata": meta, "spec": {key: value}}
            try:
                await self._client.patch(resource, *key_of(item), change)
            except ApiError as error:
                if not error.is_conflict or not left:
                    raise
                item = await self._client.get(resource, *key_of(item))
                continue
            return Held(resource, item, record)
        raise AssertionError

    async def _release(self, key: str) -> Landed:
        """Put one change back."""
        if (held := self._held.get(key)) is None:
            return Landed(ok=True, proof="nothing to put back", at_s=time.monotonic())
        name = f"{held.resource.kind} {name_of(held.item)}"
        try:
            why_not = await put_back(self._client, held.resource, held.item)
        except ApiError as error:
            return not_landed(str(error))
        self._held.pop(key, None)
        back = f"{held.record.key} of {name} is {held.record.was} again"
        self._note(why_not or back)
        return Landed(ok=not why_not, proof=why_not or back, at_s=time.monotonic())

    def _note(self, text: str) -> None:
        now_s = time.monotonic()
        self._roster.journal.note(text, now_s, now_s, None)


def _scale_key(role: str) -> str:
    return f"scale {role}"


def _cordon_key(replica: Replica) -> str:
    return f"cordon {replica}"


async def _until(holds: Callable[[], bool], within_s: float) -> bool:
    """Wait until something holds. Return false if it does not in this time."""
    until_s = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > until_s:
            return False
        await asyncio.sleep(POLL_S)
    return True

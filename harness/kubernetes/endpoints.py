"""Compare what the cluster says about each pod with what the pod does: its readiness, and its entries in EndpointSlices.

A pod serves if the readiness probe of the graph file passes. It is asked through a door of its own, which is open as long as the pod runs.
The kubelet learns of a change only by its own probe: after some failures, or at the next success. So the cluster counts as wrong only if
the pod has served, or has not served, for longer than this probe needs. The promise `views_agree` then adds its own bound.
An entry of a pod that is gone is wrong at once.

Nothing is said about a replica that was never ready in this life, that shuts down, or that is stalled. Headless Services are left out,
because they may list pods that are not ready on purpose.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import (
    ENDPOINT_SLICES,
    ENDPOINT_SLICES_BETA,
    labels_of,
)
from graphquake.harness.kubernetes.api.watch import Watch
from graphquake.harness.kubernetes.pods import Pod
from graphquake.harness.kubernetes.roster import Roster
from graphquake.harness.observation.http_probe import Prober
from graphquake.harness.processes.layout import Layout
from graphquake.harness.processes.replicas import Incarnation, ReplicaState
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import View

HEADLESS: Final = "service.kubernetes.io/headless"
# The defaults of a readiness probe.
PERIOD_S: Final = 10.0
FAILURES: Final = 3.0
ANSWER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _State:
    """Whether a life serves, and since when."""

    life: str
    serves: bool
    since_s: float


def probe_needs_s(pod: Pod, *, serves: bool) -> float:
    """Return the time that the kubelet needs to learn whether a pod serves, in seconds. 0 if the pod has no readiness probe."""
    containers: list[dict[str, Any]] = pod.item["spec"].get("containers") or []
    probe = next((c.get("readinessProbe") for c in containers if c["name"] == pod.container), None)
    if probe is None:
        return 0.0
    period_s = float(probe.get("periodSeconds") or PERIOD_S)
    answer_s = float(probe.get("timeoutSeconds") or ANSWER_S)
    if serves:
        return period_s * float(probe.get("successThreshold") or 1) + answer_s
    return period_s * float(probe.get("failureThreshold") or FAILURES) + answer_s


class Endpoints:
    """Compares the cluster's views of one graph with its replicas. Run `follow` in the background.

    Args:
        layout: the replicas.
        client: the API server.
        roster: which pod is which replica.
        prober: sends the GET requests.
    """

    def __init__(self, layout: Layout, client: Client, roster: Roster, prober: Prober) -> None:
        self._layout = layout
        self._roster = roster
        self._prober = prober
        cluster = layout.spec.cluster
        assert cluster is not None
        self._watches = [
            Watch(client, one, cluster.namespace) for one in (ENDPOINT_SLICES, ENDPOINT_SLICES_BETA)
        ]
        self._behind: set[str] = set()
        self._states: dict[Replica, _State] = {}
        self._last: dict[Replica, str] = {}

    async def follow(self) -> None:
        """Follow the EndpointSlices, until cancelled, or until the API server says that they may not be read, or that it has none."""
        for watch in self._watches:
            try:
                async for _ in watch.changes():
                    pass
            except ApiError as error:
                if error.is_forbidden:
                    return
                if not error.is_missing:
                    raise

    async def views(self, serving: Mapping[Replica, Incarnation | None]) -> list[View]:
        """Return what the cluster says about each replica with a readiness probe in the graph file, and what would be right.

        Args:
            serving: the replicas that have just passed this probe, each with its life at that time. They are not asked again.
        """
        listed = self._listed()
        asked = [one for one in self._layout.replicas.values() if one.role.ready is not None]
        found = await asyncio.gather(*(self._views_of(one, listed, serving) for one in asked))
        return [view for views in found for view in views]

    def _listed(self) -> dict[str, bool]:
        """Return the pods in EndpointSlices by their uid, each with whether an entry says that it is ready."""
        found: dict[str, bool] = {}
        for item in (one for watch in self._watches for one in watch.known.values()):
            if HEADLESS in labels_of(item):
                continue
            for one in item.get("endpoints") or []:
                uid = str((one.get("targetRef") or {}).get("uid", ""))
                # No condition means ready, as the API says.
                is_ready = (one.get("conditions") or {}).get("ready") is not False
                found[uid] = found.get(uid, False) or is_ready
        return found

    async def _views_of(
        self,
        one: ReplicaState,
        listed: dict[str, bool],
        serving: Mapping[Replica, Incarnation | None],
    ) -> list[View]:
        pod, life = self._roster.pod(one.name), one.now
        last = self._last.get(one.name, "")
        if (pod is None or pod.uid != last) and listed.get(last):
            return [View(one.name, "endpoint", says=1, holds=0)]
        if pod is None or life is None or not life.ready.is_set():
            return []
        is_seen = serving.get(one.name) is life
        serves = one.running is not None and (is_seen or await self._serves(one))
        if one.is_ending or pod.deleting or life.stalled or life.partly or one.now is not life:
            self._states.pop(one.name, None)
            return []
        self._last[one.name], now_s = pod.uid, time.monotonic()
        state = self._states.get(one.name)
        if state is None or (state.life, state.serves) != (life.key, serves):
            state = self._states[one.name] = _State(life.key, serves, now_s)
        is_known = now_s - state.since_s >= probe_needs_s(pod, serves=serves)
        now = self._roster.pod(one.name) or pod
        says = {"pod": now.ready}
        if pod.uid in listed:
            self._behind.add(one.role.name)
        if one.role.name in self._behind:
            says["endpoint"] = listed.get(pod.uid, False)
        return [
            View(one.name, "endpoint" if kind == "endpoint" else "pod", int(said), int(serves if is_known else said))
            for kind, said in says.items()
        ]  # fmt: skip

    async def _serves(self, one: ReplicaState) -> bool:
        probe = one.role.ready
        assert probe is not None
        inside = ReplicaState(one.role, one.index, ports=self._roster.inner_ports(one.name))
        answer = await self._prober.get(self._layout.fill(inside, probe.get))
        return answer.status == HTTPStatus.OK and re.search(probe.body, answer.text) is not None

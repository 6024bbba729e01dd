"""Follow the events of a namespace, and keep those about the pods and workloads of the graph.

An event may come before its pod is known, e.g. that it was scheduled. So all events of the namespace are kept for a while, and which of
them are about the graph is decided when they are asked for. A user who may not read events gets none.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from graphquake.harness.history.notices import Notice
from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import EVENTS, Json, wall_s
from graphquake.harness.kubernetes.api.watch import Watch
from graphquake.harness.kubernetes.roster import Roster

# The most events that are kept.
KEPT_MAX: Final = 2000
SAID_MAX: Final = 500


class _Heard(NamedTuple):
    at_s: float
    item: Json


class Notices:
    """The events of one namespace.

    Args:
        client: the API server.
        namespace: the namespace.
        roster: tells which objects belong to the graph.
    """

    def __init__(self, client: Client, namespace: str, roster: Roster) -> None:
        self._client = client
        self._watch = Watch(client, EVENTS, namespace)
        self._roster = roster
        self._heard: deque[_Heard] = deque(maxlen=KEPT_MAX)
        self._since_s = time.monotonic()

    async def follow(self) -> None:
        """Follow the events, until cancelled, or until the API server says that they may not be read."""
        try:
            async for change in self._watch.changes():
                if change.kind != "DELETED":
                    self._heard.append(_Heard(self._at_s(change.item, change.seen_s), change.item))
        except ApiError as error:
            if not error.is_forbidden:
                raise

    def begin_run(self) -> None:
        """Forget what was said so far."""
        self._since_s = time.monotonic()

    def all(self) -> list[Notice]:
        """Return the notices of this run, in the order of time. Times are `time.monotonic()` seconds."""
        return sorted(self._about_graph(), key=lambda one: one.at_s)

    def _about_graph(self) -> Iterator[Notice]:
        for at_s, item in list(self._heard):
            about: dict[str, Any] = item.get("involvedObject") or {}
            kind, name = str(about.get("kind", "")), str(about.get("name", ""))
            if at_s < self._since_s or (kind, name) not in self._roster.objects:
                continue
            yield Notice(
                at_s,
                f"{kind} {name}",
                self._roster.objects[kind, name],
                str(item.get("reason", "")),
                str(item.get("message", ""))[:SAID_MAX],
                item.get("type") == "Warning",
                int(item.get("count") or (item.get("series") or {}).get("count") or 1),
            )

    def _at_s(self, item: Json, seen_s: float) -> float:
        series = item.get("series") or {}
        meta = item["metadata"]
        text = series.get("lastObservedTime") or item.get("lastTimestamp")
        text = text or item.get("eventTime") or meta.get("creationTimestamp")
        return self._client.clock.moment(wall_s(text)).nearest(seen_s) if text else seen_s

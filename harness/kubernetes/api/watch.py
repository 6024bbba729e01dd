"""Follow a collection of objects: first the list, then each change, also past interruptions.

A watch goes on from the last version that it saw, also from bookmarks. If the API server no longer has that version (410 Gone), the
collection is listed again, and compared with what is known. So no change is lost, but several changes of one object may be seen as one.
An API server that is away is asked again and again. How long that may last is the caller's decision: see `Watch.heard_s`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal, TypeAlias

import aiohttp

from graphquake.harness.kubernetes.api.client import BUSY, PAUSE_FIRST_S, PAUSE_MAX_S, Client
from graphquake.harness.kubernetes.api.errors import ApiError, error_of
from graphquake.harness.kubernetes.api.objects import Json, Resource, key_of, uid_of, version_of

# The API server ends a watch after this time, and the watch begins anew. So a connection that has silently died is noticed.
WATCH_S: Final = 30.0
SILENCE_S: Final = WATCH_S + 5.0
# The longest line of a watch: an object may have 1.5 MB in etcd, and JSON is longer.
LINE_MAX_BYTES: Final = 8 << 20

ChangeKind: TypeAlias = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one object.

    Attributes:
        kind: `ADDED`, `MODIFIED` or `DELETED`.
        item: the object after the change, or as it was last.
        seen_s: the time at which this process learned of it, in `time.monotonic()` seconds.
    """

    kind: ChangeKind
    item: Json
    seen_s: float


class Watch:
    """Follows one collection.

    Attributes:
        known: the objects as they are known now, by namespace and name.
        heard_s: the time at which the API server last answered, in `time.monotonic()` seconds.
        is_synced: true as soon as the collection was listed once.
        lists: the number of times that the collection was listed.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        *,
        silence_s: float = SILENCE_S,
    ) -> None:
        """Begin nothing yet: `changes` does.

        Args:
            client: the API server.
            resource: the kind of object.
            namespace: the namespace, or empty for all.
            labels: a label selector. May be empty.
            fields: a field selector. May be empty.
            silence_s: the longest silence after which the connection counts as dead, in seconds.
        """
        self.known: dict[tuple[str, str], Json] = {}
        self.heard_s = time.monotonic()
        self.is_synced = False
        self.lists = 0
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._selectors = {"labelSelector": labels, "fieldSelector": fields}
        self._labels, self._fields = labels, fields
        self._silence_s = silence_s

    async def changes(self) -> AsyncIterator[Change]:
        """Yield each change, for ever. The first ones are the objects that exist already.

        Raises:
            ApiError: if the API server refuses the request for a reason that does not pass, e.g. because no role allows it.
        """
        version = ""
        pause_s = PAUSE_FIRST_S
        while True:
            try:
                if not version:
                    version, found = await self._relisted()
                    for change in found:
                        yield change
                async for seen, at in self._watched(version):
                    version, pause_s = at, PAUSE_FIRST_S
                    if seen is not None:
                        yield seen
                pause_s = PAUSE_FIRST_S
                continue
            except ApiError as error:
                if error.is_expired:
                    version = ""
                    continue
                is_passing = not error.status or error.status in BUSY
                if not is_passing and error.status != HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def _relisted(self) -> tuple[str, list[Change]]:
        """List the collection. Return its version, and the changes since it was last known."""
        found = await self._client.list_all(
            self._resource, self._namespace, self._labels, self._fields
        )
        self.heard_s = time.monotonic()
        self.lists += 1
        now = {key_of(item): item for item in found.items}
        changes = [*self._compared(now)]
        self.known = now
        self.is_synced = True
        return found.version, changes

    def _compared(self, now: dict[tuple[str, str], Json]) -> Iterator[Change]:
        at_s = self.heard_s
        for key, old in self.known.items():
            if key not in now or uid_of(now[key]) != uid_of(old):
                yield Change("DELETED", old, at_s)
        for key, item in now.items():
            known = self.known.get(key)
            if known is None or uid_of(known) != uid_of(item):
                yield Change("ADDED", item, at_s)
            elif version_of(known) != version_of(item):
                yield Change("MODIFIED", item, at_s)

    async def _watched(self, version: str) -> AsyncIterator[tuple[Change | None, str]]:
        """Yield the changes after a version, each with the next version, until the API server ends the watch."""
        query = {
            **self._selectors,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": f"{WATCH_S:.0f}",
        }
        path = self._resource.path(self._namespace)
        answer = await self._client.stream(path, query, self._silence_s)
        self.heard_s = time.monotonic()
        try:
            async for line in _lines(answer):
                self.heard_s = time.monotonic()
                said = json.loads(line)
                item: Json = said["object"]
                if said["type"] == "ERROR":
                    raise error_of(f"watch of {path}", int(item.get("code") or 0), item)
                if said["type"] == "BOOKMARK":
                    yield None, version_of(item)
                    continue
                yield self._noted(said["type"], item), version_of(item)
        finally:
            answer.close()

    def _noted(self, kind: ChangeKind, item: Json) -> Change:
        if kind == "DELETED":
            self.known.pop(key_of(item), None)
        else:
            self.known[key_of(item)] = item
        return Change(kind, item, self.heard_s)


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the lines of an answer. A line may be far longer than aiohttp's own limit."""
    rest: list[bytes] = []
    size = 0
    async for part in answer.content.iter_any():
        *whole, last = part.split(b"\n")
        for line in whole:
            yield b"".join([*rest, line])
            rest, size = [], 0
        rest.append(last)
        size += len(last)
        if size > LINE_MAX_BYTES:
            raise ApiError(f"a line of a watch is longer than {LINE_MAX_BYTES} bytes")


def items_of(watch: Watch) -> list[dict[str, Any]]:
    """Return the objects that a watch knows, in the order of their names."""
    return [watch.known[key] for key in sorted(watch.known)]

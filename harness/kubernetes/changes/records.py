"""Records on the objects that a run changes: what stood there before, and whose run it is.

A record is written in the same request as the change. So no change is ever without its record, even if the harness is killed at any moment.
The record is a label, by which a sweep finds the object, and an annotation with the details. Whoever puts the object back removes both.

A run renews its records every `BEAT_EVERY_S` seconds. A record is *over* if its process has ended, or if nobody has renewed it for
`SILENT_S` seconds. The second rule is for runs of other machines, whose processes can't be seen from here.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import (
    DEPLOYMENTS,
    NODES,
    STATEFUL_SETS,
    Json,
    Resource,
    key_of,
    version_of,
)

LABEL: Final = "graphquake/changed"
NOTE: Final = "graphquake/put-back"
BEAT_EVERY_S: Final = 10.0
SILENT_S: Final = 30.0
# How often a change is tried again if another user changes the object in the same moment.
TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Owner:
    """The process of a run.

    Attributes:
        space: the machine since its last boot, and the PID namespace of the process.
        pid: its pid in that namespace.
        start_s: its start, in seconds since the epoch.
    """

    space: str
    pid: int
    start_s: float

    @classmethod
    def here(cls) -> Owner:
        """Return this process."""
        return cls(_space(), os.getpid(), psutil.Process().create_time())

    def lives(self) -> bool | None:
        """Return whether the process lives. None if it can't be seen from here."""
        if self.space != _space():
            return None
        try:
            return abs(psutil.Process(self.pid).create_time() - self.start_s) < 1.0
        except psutil.Error:
            return False


def _space() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116 # of the namespace behind the link


@dataclass(frozen=True, slots=True)
class Record:
    """What a run has changed at one object.

    Attributes:
        key: the key of `spec` that was changed.
        was: the value before. None if there was none.
        now: the value that the run has set.
        owner: the process of the run.
        beat_s: when the record was last renewed, in seconds since the epoch.
    """

    key: str
    was: Any
    now: Any
    owner: Owner
    beat_s: float

    def is_over(self) -> bool:
        """True if the run has ended, or has been silent for too long."""
        lives = self.owner.lives()
        return time.time() - self.beat_s > SILENT_S if lives is None else not lives

    def marks(self, run: str) -> Json:
        """Return the label and the annotation, as a part of a merge patch."""
        return {"labels": {LABEL: run}, "annotations": {NOTE: json.dumps(asdict(self))}}


def record_of(item: Json) -> Record | None:
    """Return the record of an object, or None if it has none that can be read."""
    text = (item["metadata"].get("annotations") or {}).get(NOTE, "")
    with suppress(ValueError, TypeError, KeyError):
        said = json.loads(text)
        return Record(**{**said, "owner": Owner(**said["owner"])})
    return None


_UNMARKED: Final[Json] = {"labels": {LABEL: None}, "annotations": {NOTE: None}}


async def put_back(client: Client, resource: Resource, item: Json) -> str:
    """Give an object the value that its record names, and remove the record.

    If another user has changed the value since, it is left as it is.

    Returns:
        An empty text if the former value is back, or the reason why it is not.

    Raises:
        ApiError: if the API server refuses the change.
    """
    namespace, name = key_of(item)
    for _ in range(TRIES):
        now = await client.get(resource, namespace, name)
        record = record_of(now)
        if record is None:
            return f"another user has removed the record of {resource.kind} {name}"
        value = now["spec"].get(record.key)
        is_ours = value == record.now
        meta: Json = {**_UNMARKED, "resourceVersion": version_of(now)}
        change: Json = {"metadata": meta}
        if is_ours:
            change["spec"] = {record.key: record.was}
        try:
            await client.patch(resource, namespace, name, change)
        except ApiError as error:
            if error.is_conflict:
                continue
            raise
        if is_ours:
            return ""
        return f"another user has set {record.key} of {resource.kind} {name} to {value}, so it stays"  # fmt: skip
    return f"{resource.kind} {name} changes all the time"


async def sweep_records(client: Client, namespace: str, *, nodes: bool) -> list[str]:
    """Put back what runs have changed that are over. Return the names of these objects.

    Args:
        client: the API server.
        namespace: the namespace of the graph.
        nodes: true if nodes may be changed, too.

    Raises:
        ApiError: if the API server refuses it. A user who may not list Deployments could not change any, so that is passed over.
    """
    swept = []
    for resource, where in (
        (DEPLOYMENTS, namespace),
        (STATEFUL_SETS, namespace),
        *([(NODES, "")] if nodes else []),
    ):
        try:
            found = await client.list_all(resource, where, labels=LABEL)
        except ApiError as error:
            if error.is_forbidden:
                continue
            raise
        for item in found.items:
            record = record_of(item)
            if record is not None and record.is_over():
                await put_back(client, resource, item)
                swept.append(f"{resource.kind} {item['metadata']['name']}")
    return swept

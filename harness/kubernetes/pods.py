"""Pods as a run sees them: which process of which container runs now, whether it is ready, and how the one before ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphquake.harness.kubernetes.api.objects import Json, key_of, uid_of, wall_s

# The exit code of a process that a signal ended is this number plus the signal's.
SIGNALLED = 128


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of one process of a container.

    Attributes:
        container_id: which process it was.
        status: the exit code, or minus the number of the signal that ended it.
        finished_s: the end in seconds since the epoch, cut to whole seconds. None if the cluster does not know it.
    """

    container_id: str
    status: int
    finished_s: float | None


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod, and its container of interest.

    Attributes:
        container: the name of the container.
        container_id: the id of its present process, or of the last one. Empty before the first.
        runs: true while that process runs.
        started_s: its start in seconds since the epoch, cut to whole seconds. None if it does not run.
        ready: true if the pod counts as ready in the cluster.
        deleting: true if the pod was deleted, and is not gone yet.
        over: true if the pod will never run again.
        ends: the known ends of processes, at most two.
        waits_for: the reason why no process runs, e.g. `CrashLoopBackOff`. Empty if one runs.
        shares_pids: true if the container sees processes of other containers or of the node.
        item: the object itself.
    """

    name: str
    namespace: str
    uid: str
    created: str
    container: str
    container_id: str
    runs: bool
    started_s: float | None
    ready: bool
    deleting: bool
    over: bool
    ends: tuple[Ended, ...]
    waits_for: str
    shares_pids: bool
    item: Json

    @property
    def life(self) -> tuple[str, str]:
        """The identity of one incarnation: a new pod and a new process of a container are both a new one."""
        return self.uid, self.container_id

    def end_of(self, container_id: str) -> Ended | None:
        """Return the end of a process, if the pod still tells of it."""
        return next((one for one in self.ends if one.container_id == container_id), None)


def read_pod(item: Json, container: str = "") -> Pod:
    """Read a pod.

    Args:
        item: the object.
        container: the name of the container of interest, or empty for the first one.
    """
    meta, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    container = container or spec["containers"][0]["name"]
    states = status.get("containerStatuses") or []
    mine: Json = next((one for one in states if one["name"] == container), {})
    state: Json = mine.get("state") or {}
    running: Json | None = state.get("running")
    namespace, name = key_of(item)
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or []}
    waiting: Json = state.get("waiting") or {}
    return Pod(
        name=name,
        namespace=namespace,
        uid=uid_of(item),
        created=str(meta.get("creationTimestamp", "")),
        container=container,
        container_id=str(mine.get("containerID", "")),
        runs=running is not None,
        started_s=_time(running, "startedAt"),
        ready=conditions.get("Ready") == "True",
        deleting="deletionTimestamp" in meta,
        over=status.get("phase") in {"Succeeded", "Failed"},
        ends=tuple(_ends(mine)),
        waits_for=_why_not(waiting, conditions, status) if running is None else "",
        shares_pids=bool(spec.get("hostPID") or spec.get("shareProcessNamespace")),
        item=item,
    )


def _why_not(waiting: Json, conditions: dict[str, str], status: Json) -> str:
    if waiting:
        return ": ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
    if conditions.get("PodScheduled") == "False":
        return "no node has room for it"
    return str(status.get("reason") or status.get("phase") or "not seen by a node yet")


def _ends(mine: Json) -> list[Ended]:
    found = []
    for key in ("state", "lastState"):
        ended: Json | None = (mine.get(key) or {}).get("terminated")
        if ended is not None:
            code = int((ended.get("signal") and -ended["signal"]) or ended.get("exitCode", 0))
            status = SIGNALLED - code if code > SIGNALLED else code
            which = str(ended.get("containerID") or mine.get("containerID", ""))
            found.append(Ended(which, status, _time(ended, "finishedAt")))
    return found


def _time(table: dict[str, Any] | None, key: str) -> float | None:
    text = (table or {}).get(key)
    return wall_s(text) if text else None

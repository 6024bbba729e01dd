"""Write the log of each incarnation to a file, as it grows. The kubelet keeps a log only until the pod is gone, so it is read at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import aiohttp

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import PODS
from graphquake.harness.kubernetes.pods import Pod
from graphquake.harness.processes.replicas import Incarnation

# The pause before a log whose stream has ended is asked for again.
AGAIN_S: Final = 0.5
# A container that says nothing for this long is asked again. Nothing is lost, because what is known already is skipped.
SILENCE_S: Final = 60.0


async def follow_log(client: Client, pod: Pod, life: Incarnation) -> None:
    """Copy the log of one life of a container into its file, until the life has ended and its log was read to the end.

    A stream that breaks, e.g. because the API server is away, is begun again. The bytes that are in the file already are skipped.
    """
    path = PODS.path(pod.namespace, pod.name, "log")
    while True:
        # After a restart, the log of the life before has another name.
        previous = not life.runs and await _is_previous(client, pod)
        query = {"container": pod.container, "previous": "true" if previous else ""}
        query["follow"] = "" if previous else "true"
        was_over = not life.runs
        try:
            await _copy(client, path, query, life.log, _size(life.log))
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError):
            if was_over:
                return
        else:
            if was_over or not life.runs:
                return
        await asyncio.sleep(AGAIN_S)


async def _is_previous(client: Client, pod: Pod) -> bool:
    """True if another process of the container has started since."""
    try:
        item = await client.get(PODS, pod.namespace, pod.name)
    except ApiError:
        return False
    states = (item.get("status") or {}).get("containerStatuses") or []
    ids = [one.get("containerID") for one in states if one["name"] == pod.container]
    return bool(ids) and ids[0] != pod.container_id


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def _copy(client: Client, path: str, query: dict[str, str], to: Path, skip: int) -> None:
    """Append a log without its first `skip` bytes."""
    answer = await client.stream(path, query, SILENCE_S)
    try:
        with to.open("ab", buffering=0) as file:
            async for data in answer.content.iter_any():
                new = data[skip:]
                skip = max(0, skip - len(data))
                file.write(new)
    finally:
        answer.close()

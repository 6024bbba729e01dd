"""Take resources from a replica for a time, prove that the kernel refuses them, and give them back.

If the harness dies during a squeeze, nothing of it stays: soft limits and bound cores end with the processes, hogs are children of the
guard, and the guard removes the control group. A replica that dies during a squeeze is free of it when it starts again.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from graphquake.harness.errors import GraphError
from graphquake.harness.processes.guard_client import Guard
from graphquake.harness.processes.layout import Layout
from graphquake.harness.processes.process_tree import ProcessTree
from graphquake.harness.processes.procfs import OWNER, REPLICA, kill_all, runs
from graphquake.harness.processes.replicas import Incarnation
from graphquake.harness.processes.resources.gpus import free_bytes_of
from graphquake.harness.processes.signals import KILL_WITHIN_S, not_landed
from graphquake.harness.processes.squeezes import gpu_hogs
from graphquake.harness.processes.squeezes.cgroups import CpuGroup
from graphquake.harness.processes.squeezes.cpu_hogs import (
    bind,
    hog_command,
    hogs_for,
    threads_of,
    waited_s,
)
from graphquake.harness.processes.squeezes.disks import PrivateDisks
from graphquake.harness.processes.squeezes.limits import (
    MIB,
    Limit,
    lift,
    limit_files,
    limit_memory,
)
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Squeezable, landed_now
from graphquake.harness.targets.target import Landed

# The longest wait for the effect of a squeeze of CPU. A replica that needs less than its share in this time is not squeezed.
EFFECT_WITHIN_S: Final = 2.0
LOOK_EVERY_S: Final = 0.05
# A replica is squeezed by hogs if it had to wait for its core for this time, in seconds.
WAITED_MIN_S: Final = 0.02
# A hog outlives its squeeze by at most this time, in seconds.
HOG_SLACK_S: Final = 5.0

# Gives the resource back, and returns the proof in words.
Release: TypeAlias = Callable[[], Awaitable[str]]


class _Squeezed(NamedTuple):
    """A squeeze that goes on: its proof in words, and the way back."""

    proof: str
    release: Release


class Squeezer:
    """Squeezes the replicas of a launched graph. `ResourceActions` describes what each method does.

    Args:
        layout: the replicas of the graph.
        guard: starts hogs, and removes control groups at the end.
        tree: finds the processes of a replica.
        owner: the mark of the graph's processes.
        disks: the private disks of replicas.
    """

    def __init__(
        self, layout: Layout, guard: Guard, tree: ProcessTree, owner: str, disks: PrivateDisks
    ) -> None:
        self._disks = disks
        self._layout = layout
        self._guard = guard
        self._tree = tree
        self._owner = owner
        self._groups: list[CpuGroup] = []
        self._ongoing: dict[tuple[Replica, Squeezable], tuple[Incarnation, Release]] = {}

    async def squeeze(
        self, replica: Replica, what: Squeezable, amount: int, for_s: float
    ) -> Landed:
        """Take the resource away, and wait for the effect."""
        running = self._layout.replicas[replica].running
        if running is None:
            return not_landed(f"{replica} was dead already")
        if (replica, what) in self._ongoing:
            return not_landed(f"{what} of {replica} is squeezed already")
        try:
            squeezed = await self._take(replica, running, what, amount, for_s)
        except (OSError, GraphError) as error:
            return not_landed(f"{what} of {replica} can't be squeezed: {error}")
        if isinstance(squeezed, str):
            return not_landed(squeezed)
        running.partly = True
        self._ongoing[replica, what] = running, squeezed.release
        return landed_now(squeezed.proof)

    async def release(self, replica: Replica, what: Squeezable) -> Landed:
        """Give the resource back. A replica that died meanwhile counts as free of the squeeze."""
        running, release = self._ongoing.pop((replica, what))
        running.partly = any(one is running for one, _ in self._ongoing.values())
        try:
            proof = await release()
        except GraphError as error:
            return not_landed(f"{what} of {replica} is still squeezed: {error}")
        return landed_now(proof if running.runs else f"it had died; {proof}")

    def close(self) -> None:
        """Remove the control groups that are left, once every process of the graph has ended. The guard does that, unless it was killed."""
        for group in self._groups:
            group.remove()

    async def _take(
        self, replica: Replica, running: Incarnation, what: Squeezable, amount: int, for_s: float
    ) -> _Squeezed | str:
        """Squeeze one resource. The result is a text if that had no effect."""
        pids = self._tree.of(running)
        match what:
            case "files":
                return self._limited(replica, running, limit_files(pids))
            case "memory":
                return self._limited(replica, running, limit_memory(pids, amount))
            case "disk":
                state = self._layout.replicas[replica]
                return _Squeezed(
                    f"the disk of {replica} is full: {await self._disks.fill(state, for_s + HOG_SLACK_S)}",
                    partial(self._disks.free, state),
                )
            case "gpu memory" | "gpu compute":
                return await self._hog_gpu(replica, what, amount, for_s)
            case "cpu":
                try:
                    group = CpuGroup.make(amount, self._guard.owns)
                except OSError:
                    return await self._hog(replica, running, amount, for_s)
                return await self._throttle(replica, running, group)

    # ------------------------------------------------------------------------------------------------- files and memory

    def _limited(
        self, replica: Replica, running: Incarnation, limits: list[Limit]
    ) -> _Squeezed | str:
        main = next((one for one in limits if one.pid == running.child.pid), None)
        if main is None:
            lift(limits)
            return f"{replica} died meanwhile"

        async def release() -> str:
            lifted = lift(limits)
            return f"{len(lifted)} of {len(limits)} processes have their old soft limits"

        return _Squeezed(f"{_limit_text(main)}; {len(limits)} processes of {replica}", release)

    # -------------------------------------------------------------------------------------------------------------- CPU

    async def _throttle(
        self, replica: Replica, running: Incarnation, group: CpuGroup
    ) -> _Squeezed | str:
        self._groups.append(group)

        async def release() -> str:
            throttled = group.throttled()
            group.remove()
            return f"the control group is gone; it was throttled in {throttled} periods"

        begun_s = time.monotonic()
        try:
            group.add(self._tree.of(running))
            while not group.throttled():
                if time.monotonic() > begun_s + EFFECT_WITHIN_S:
                    group.remove()
                    return f"{replica} needed no more than its share in {EFFECT_WITHIN_S:g} s"
                await asyncio.sleep(LOOK_EVERY_S)
        except BaseException:
            group.remove()
            raise
        took_s = time.monotonic() - begun_s
        return _Squeezed(
            f"the control group of {replica} (version {group.version}) was throttled {took_s:.2f} s after it had been made",
            release,
        )

    async def _hog(
        self, replica: Replica, running: Incarnation, share: int, for_s: float
    ) -> _Squeezed | str:
        cpu = min(os.sched_getaffinity(running.child.pid))
        mark = f"hog of {replica}"
        threads = threads_of(self._tree.of(running))
        begun_s, before_s = time.monotonic(), waited_s(threads)
        bound = bind(threads, {cpu})
        count = hogs_for(share)

        async def release() -> str:
            await self._end(mark)
            for thread, cpus in bound.items():
                bind([thread], cpus)
            return f"{count} hogs are gone"

        try:
            for number in range(count):
                await self._start_hog(f"{mark}.{number}", hog_command(cpu, for_s + HOG_SLACK_S))
            until_s = time.monotonic() + EFFECT_WITHIN_S
            while (waited := waited_s(threads) - before_s) < WAITED_MIN_S:
                if time.monotonic() > until_s:
                    await release()
                    return f"{replica} needed no more than its share in {EFFECT_WITHIN_S:g} s"
                await asyncio.sleep(LOOK_EVERY_S)
        except BaseException:
            await release()
            raise
        return _Squeezed(
            f"{replica} shares core {cpu} with {count} hogs, and waited {waited * 1e3:.0f} ms for it in "
            f"{time.monotonic() - begun_s:.2f} s",
            release,
        )

    async def _hog_gpu(
        self, replica: Replica, what: Squeezable, left_mib: int, for_s: float
    ) -> _Squeezed | str:
        gpus = self._layout.replicas[replica].gpus
        if not gpus:
            return f"{replica} has no GPU"
        gpu, mark = gpus[0], f"{what} hog of {replica}"
        before_bytes = free_bytes_of(gpu)
        command = gpu_hogs.hog_command(what, left_mib, for_s + HOG_SLACK_S)
        pid = await self._start_hog(f"{mark}.0", command, {"CUDA_VISIBLE_DEVICES": gpu})
        end = partial(self._end, mark)
        try:
            seen = await gpu_hogs.effect_text(gpu, what, left_mib, before_bytes, partial(runs, pid))
        except BaseException:
            await end()
            raise
        if not seen:
            await end()
            said = self._log_of(f"{mark}.0").read_text().strip() or "it said nothing"
            return f"the hog of GPU {gpu} had no effect that NVML shows: {said}"
        return _Squeezed(f"{seen}, by pid {pid}", partial(gpu_hogs.free_text, gpu, what, end))

    def _log_of(self, mark: str) -> Path:
        return self._layout.run_dir / "logs" / f"{mark.replace(' ', '-')}.log"

    async def _start_hog(
        self, mark: str, command: list[str], env: Mapping[str, str] = MappingProxyType({})
    ) -> int:
        own = {OWNER: self._owner, REPLICA: mark, "PATH": os.environ.get("PATH", os.defpath)}
        folder, log = str(self._layout.run_dir), str(self._log_of(mark))
        pid = await self._guard.begin(mark, command, {**own, **env}, folder, log)
        self._tree.add(pid, mark)
        return pid

    async def _end(self, mark: str) -> None:
        def left() -> set[int]:
            return {pid for pid, key in self._tree.keys().items() if key.startswith(f"{mark}.")}

        await kill_all(left, KILL_WITHIN_S)


def _limit_text(one: Limit) -> str:
    if one.what == resource.RLIMIT_NOFILE:
        return f"pid {one.pid} has {one.used} open files, and the next one fails (EMFILE): its soft limit is {one.now}, {one.before} before"
    room_mib = (one.now - one.used) / MIB
    return f"pid {one.pid} may allocate {room_mib:.0f} MiB more (ENOMEM): its soft limit is {one.now // MIB} MiB of address space"

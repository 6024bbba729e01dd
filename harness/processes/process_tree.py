"""Map every process of a running graph to the replica that it belongs to, by reading /proc at each call.

All processes descend from the graph's guard. A process belongs to the incarnation whose main process is its ancestor. An orphan becomes
a child of the guard. Its incarnation is read from the mark in its environment or, if it has overwritten that, from its session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from graphquake.harness.processes.guard import children_of, descendants_of, stat_of
from graphquake.harness.processes.network.hub import NAME as HUB
from graphquake.harness.processes.procfs import REPLICA, command_of, marks_of, runs
from graphquake.harness.processes.replicas import Incarnation, ReplicaState
from graphquake.harness.processes.resources.gpus import MIB, memory_by_pid
from graphquake.harness.processes.resources.ports import ports_of
from graphquake.harness.processes.zygote import NAME as ZYGOTE
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import Leak

# GPU memory beyond the normal amount that does not count as a leak, because an allocator may keep some memory that it has freed. Three
# engines of 0.5 GiB each on one H100 kept less than this.
GPU_SLACK_BYTES: Final = 64 * MIB


class ProcessTree:
    """Finds the processes of one graph, and the incarnation that each of them belongs to.

    Args:
        guard_pid: the pid of the graph's guard.
    """

    def __init__(self, guard_pid: int) -> None:
        self._guard_pid = guard_pid
        # The key of the incarnation whose main process has this pid. If a pid was reused, the latest incarnation.
        self._mains: dict[int, str] = {}
        # The pid of every process that was seen so far. Then the normal amount of GPU memory, or None before it is noted.
        self._met: set[int] = set()
        self._gpu_bytes: int | None = None

    def add(self, pid: int, key: str) -> None:
        """Add a process that was just started: the main process of an incarnation, or a command of a step of the user's own."""
        self._mains[pid] = key

    def pids(self) -> list[int]:
        """The pids of all processes of the graph, including zygotes and the hub, which belong to no replica."""
        return descendants_of(self._guard_pid)

    def keys(self) -> dict[int, str]:
        """Every running process of the graph, with the key of its incarnation, or an empty key if that is not known.

        Zygotes and the hub are left out.
        """
        found = {}
        for child in children_of(self._guard_pid):
            if (stat := stat_of(child)) and stat.comm in (ZYGOTE, HUB):
                continue
            key = self._mains.get(child) or marks_of(child).get(REPLICA, "")
            if not key and (stat := stat_of(child)):
                key = self._mains.get(stat.session, "")
            for pid in (child, *descendants_of(child)):
                if runs(pid):
                    found[pid] = key
        self._met.update(found)
        return found

    def of(self, incarnation: Incarnation) -> list[int]:
        """The running processes of an incarnation, its main process first."""
        return [pid for pid, key in self.keys().items() if key == incarnation.key]

    def by_replica(self, replicas: Iterable[ReplicaState]) -> dict[Replica, list[int]]:
        """The running processes of each live replica among `replicas`."""
        owners = {one.running.key: one.name for one in replicas if one.running}
        found: dict[Replica, list[int]] = {name: [] for name in owners.values()}
        for pid, key in self.keys().items():
            if key in owners:
                found[owners[key]].append(pid)
        return found

    def note_gpu_memory(self) -> None:
        """Record the GPU memory that the graph holds now as its normal amount, for `leaks`."""
        self._gpu_bytes = self._gpu_memory().total()

    def leaks(self, live: Collection[str]) -> Iterator[Leak]:
        """Yield processes that belong to no live incarnation, ports that they listen on, and GPU memory that should be free.

        Args:
            live: the keys of the incarnations that run.
        """
        yield from self._gpu_leaks()
        for pid, key in self.keys().items():
            if key in live:
                continue
            whose = f"left by {key.rpartition('.')[0]}" if key else "of no replica"
            called = f"pid {pid} ({command_of(pid)[:60]})"
            yield Leak("process", f"{called} still runs, {whose}")
            for port in sorted(ports_of([pid])):
                yield Leak("socket", f"port {port} is listened on by {called}, {whose}")

    def _gpu_leaks(self) -> Iterator[Leak]:
        """Yield GPU memory that ended processes hold, and GPU memory beyond the normal amount. Nothing if no normal amount was noted."""
        if self._gpu_bytes is None:
            return
        held = self._gpu_memory()
        for pid in [pid for pid in held if not runs(pid)]:
            mib = held.pop(pid) // MIB
            yield Leak("gpu memory", f"pid {pid} is gone and still holds {mib} MiB of a GPU")
        more = held.total() - self._gpu_bytes
        if more > GPU_SLACK_BYTES:
            yield Leak(
                "gpu memory",
                f"{held.total() // MIB} MiB of GPUs are held, {more // MIB} MiB more than at first",
            )

    def _gpu_memory(self) -> Counter[int]:
        """The GPU memory that each process of this graph holds, in bytes, by pid. Processes that have ended count, too."""
        self.keys()  # adds new processes to `_met`
        held = memory_by_pid()
        return Counter({pid: held[pid] for pid in self._met if held[pid]})

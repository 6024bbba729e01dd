"""Measure how much work each replica of a launched graph has received: bytes that came in over TCP, and CPU time.

Bytes are counted by the kernel for each socket (see `sock_diag`). A socket belongs to the replica that listens on its local port, or
that holds it open. The harness's own probes are left out, because they say nothing about the clients' requests.
A replica may get its work in another way, e.g. through a Unix socket or shared memory. For this case its CPU time is measured as well.

The numbers only grow. A run takes the difference of two samples, and compares the replicas of one role.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from graphquake.harness.observation.http_probe import Prober
from graphquake.harness.observation.sock_diag import SockDiag, TcpSocket
from graphquake.harness.processes.procfs import cpu_s_of, sockets_of
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import Work

# The least time between two reads of all file descriptors of the graph. They are read only if there is a socket of unknown owner.
SCAN_EVERY_S: Final = 0.5


class TrafficMeter:
    """Adds up the work of each replica since the meter was made. Close it after use.

    Args:
        prober: sends the harness's own probes.
    """

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        try:
            self._kernel: SockDiag | None = SockDiag()
        except OSError:
            self._kernel = None
        # The kernel answers one question at a time. A cancelled sample leaves its thread running, so the threads have a lock, too.
        self._one_sample = asyncio.Lock()
        self._one_question = threading.Lock()
        self._listens: dict[int, Replica] = {}
        # The owner of each open socket, by its cookie. Sockets that are not in here were not there at the last scan.
        self._owner: dict[bytes, Replica | None] = {}
        self._open_bytes: dict[bytes, int] = {}
        self._bytes: Counter[Replica] = Counter()
        self._cpu_s: dict[int, float] = {}
        self._worked_s: defaultdict[Replica, float] = defaultdict(float)
        self._scanned_s = 0.0

    def close(self) -> None:
        """Close the connection to the kernel. The thread of a cancelled sample may still wait for an answer, at most some 10 ms."""
        if self._kernel is not None:
            with self._one_question:
                self._kernel.close()

    async def sample(self, processes: Mapping[Replica, list[int]]) -> dict[Replica, Work]:
        """Return the work of each replica so far.

        Args:
            processes: the pids of each live replica.
        """
        async with self._one_sample:
            if self._kernel is not None:
                # A thread asks the kernel: an answer takes 5 ms, since the kernel walks through a large table.
                asked = await asyncio.to_thread(self._ask, self._kernel, processes)
                closed, still_open, owners = asked
                self._adopt(owners, still_open)
                self._count(closed, still_open)
        for replica, family in processes.items():
            for pid in family:
                cpu_s = cpu_s_of(pid)
                self._worked_s[replica] += max(0.0, cpu_s - self._cpu_s.get(pid, cpu_s))
                self._cpu_s[pid] = cpu_s
        return {one: Work(self._bytes[one], self._worked_s[one]) for one in processes}

    def _ask(
        self, kernel: SockDiag, processes: Mapping[Replica, list[int]]
    ) -> tuple[list[TcpSocket], list[TcpSocket], dict[int, Replica] | None]:
        """Return the closed sockets, the open ones, and the owners by inode. The owners are None if it is not time to scan."""
        # The notices are read first. A socket that is closed between the two reads is counted as open now, and gets its notice later.
        with self._one_question:
            closed, still_open = kernel.closed_sockets(), kernel.open_sockets()
        return closed, still_open, _owners(processes) if self._is_due(still_open) else None

    def _is_due(self, sockets: Iterable[TcpSocket]) -> bool:
        if time.monotonic() - self._scanned_s < SCAN_EVERY_S:
            return False
        return any(
            one.cookie not in self._owner and one.local_port not in self._listens for one in sockets
        )

    def _adopt(self, owners: Mapping[int, Replica] | None, sockets: Iterable[TcpSocket]) -> None:
        if owners is None:
            return
        self._scanned_s = time.monotonic()
        for one in sockets:
            replica = owners.get(one.inode)
            self._owner[one.cookie] = replica
            if replica is not None and not one.remote_port:
                self._listens[one.local_port] = replica

    def _count(self, closed: Iterable[TcpSocket], still_open: Iterable[TcpSocket]) -> None:
        for one in closed:
            self._add(one)
            self._open_bytes.pop(one.cookie, None)
            self._owner.pop(one.cookie, None)
        for one in still_open:
            self._add(one)

    def _add(self, one: TcpSocket) -> None:
        """Add the bytes that a socket has received since it was seen last. While its owner is not known, they wait."""
        replica = self._listens.get(one.local_port) or self._owner.get(one.cookie)
        if replica is None or one.remote_port in self._prober.ports:
            return
        self._bytes[replica] += one.received_bytes - self._open_bytes.get(one.cookie, 0)
        self._open_bytes[one.cookie] = one.received_bytes


def _owners(pids: Mapping[Replica, list[int]]) -> dict[int, Replica]:
    """Return the replica that holds each socket, by the socket's inode."""
    return {
        int(inode): replica
        for replica, family in pids.items()
        for pid in family
        for inode in sockets_of(pid)
    }

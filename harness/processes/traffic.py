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
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from graphquake.harness.observation.http_probe import Prober
from graphquake.harness.observation.sock_diag import SockDiag, TcpSocket
from graphquake.harness.processes.procfs import cpu_s_of, sockets_of
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import Work

# The least time between two reads of all file descriptors of the graph. They are read only if there is a socket of unknown owner.
SCAN_EVERY_S: Final = 0.5


@dataclass(slots=True)
class _Answer:
    """The answer of one table.

    Attributes:
        closed, still_open: the sockets that were closed since the last answer, and those that are open.
        replica: the replica to which all of them belong. None if several replicas share the network namespace.
        owners: the owner of each socket of a shared namespace, by inode. None if it is not time to find them.
    """

    closed: list[TcpSocket]
    still_open: list[TcpSocket]
    replica: Replica | None
    owners: dict[int, Replica] | None = None


class TrafficMeter:
    """Adds up the work of each replica since the meter was made. Close it after use.

    Args:
        prober: sends the harness's own probes.
    """

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        # The tables of TCP sockets. Each belongs to one replica, or to all that have no network namespace of their own.
        self._tables: list[tuple[SockDiag, Replica | None]] = []
        with suppress(OSError):
            self._tables.append((SockDiag(), None))
        # The kernel answers one question at a time. A cancelled sample leaves its thread running, so the threads have a lock, too.
        self._one_sample = asyncio.Lock()
        self._one_question = threading.Lock()
        self._listens: dict[int, Replica] = {}
        # The owner of each open socket, by its cookie. Sockets that are not in here were not there at the last scan.
        self._owner: dict[bytes, Replica | None] = {}
        self._open_bytes: dict[tuple[Replica | None, bytes], int] = {}
        self._bytes: Counter[Replica] = Counter()
        self._cpu_s: dict[int, float] = {}
        self._worked_s: defaultdict[Replica, float] = defaultdict(float)
        self._scanned_s = 0.0

    def close(self) -> None:
        """Close the connection to the kernel. The thread of a cancelled sample may still wait for an answer, at most some 10 ms."""
        with self._one_question:
            for table, _ in self._tables:
                table.close()
            self._tables = []

    def look_at(self, tables: Mapping[Replica, SockDiag]) -> None:
        """Read the sockets of each replica from a table of its own, if there are such tables. The meter closes them."""
        if tables:
            self.close()
            self._tables = [(table, replica) for replica, table in tables.items()]

    async def sample(self, processes: Mapping[Replica, list[int]]) -> dict[Replica, Work]:
        """Return the work of each replica so far.

        Args:
            processes: the pids of each live replica.
        """
        async with self._one_sample:
            # A thread asks the kernel: an answer takes 5 ms, since the kernel walks through a large table.
            for one in await asyncio.to_thread(self._ask, processes):
                self._adopt(one)
                self._count(one)
        for replica, family in processes.items():
            for pid in family:
                cpu_s = cpu_s_of(pid)
                self._worked_s[replica] += max(0.0, cpu_s - self._cpu_s.get(pid, cpu_s))
                self._cpu_s[pid] = cpu_s
        return {one: Work(self._bytes[one], self._worked_s[one]) for one in processes}

    def _ask(self, processes: Mapping[Replica, list[int]]) -> list[_Answer]:
        """Ask the kernel for each table. It is time to find the owners of the sockets if an answer has such owners."""
        found = []
        with self._one_question:
            for table, replica in self._tables:
                # The notices are read first. A socket that is closed between the two reads counts as open now, and gets its notice later.
                one = _Answer(table.closed_sockets(), table.open_sockets(), replica)
                if replica is None and self._is_due(one.still_open):
                    one.owners = _owners(processes)
                found.append(one)
        return found

    def _is_due(self, sockets: Iterable[TcpSocket]) -> bool:
        if time.monotonic() - self._scanned_s < SCAN_EVERY_S:
            return False
        return any(
            one.cookie not in self._owner and one.local_port not in self._listens for one in sockets
        )

    def _adopt(self, answer: _Answer) -> None:
        if answer.owners is None:
            return
        self._scanned_s = time.monotonic()
        for one in answer.still_open:
            replica = answer.owners.get(one.inode)
            self._owner[one.cookie] = replica
            if replica is not None and not one.remote_port:
                self._listens[one.local_port] = replica

    def _count(self, answer: _Answer) -> None:
        for one in answer.closed:
            self._add(one, answer.replica)
            self._open_bytes.pop((answer.replica, one.cookie), None)
            self._owner.pop(one.cookie, None)
        for one in answer.still_open:
            self._add(one, answer.replica)

    def _add(self, one: TcpSocket, of: Replica | None) -> None:
        """Add the bytes that a socket has received since it was seen last. While its owner is not known, they wait."""
        replica = of or self._listens.get(one.local_port) or self._owner.get(one.cookie)
        if replica is None or one.remote_port in self._prober.ports:
            return
        key = of, one.cookie
        self._bytes[replica] += one.received_bytes - self._open_bytes.get(key, 0)
        self._open_bytes[key] = one.received_bytes


def _owners(pids: Mapping[Replica, list[int]]) -> dict[int, Replica]:
    """Return the replica that holds each socket, by the socket's inode."""
    return {
        int(inode): replica
        for replica, family in pids.items()
        for pid in family
        for inode in sockets_of(pid)
    }

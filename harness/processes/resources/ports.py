"""The TCP ports on which processes listen.

The kernel's table in /proc has a line for each connection, also for those that were closed in the last minute. Under load these are
thousands, and to read them takes 20 ms. So the kernel is asked for listening sockets alone. It answers for the network namespace of this
process. For a process in another one, the table in /proc is read: a replica's own namespace has few connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from graphquake.harness.observation.sock_diag import SockDiag
from graphquake.harness.processes.procfs import sockets_of

_LISTEN: Final = "0A"


def ports_of(processes: Sequence[int]) -> set[int]:
    """The TCP ports on which any of these processes listens. All of them are in one network namespace."""
    held = set[str]().union(*map(sockets_of, processes))
    found = _listeners(processes[0]) if processes else ()
    return {port for port, inode in found if inode in held}


def _listeners(pid: int) -> list[tuple[int, str]]:
    """The port and the inode of each listening socket in the network namespace of a process. Empty if the process is gone."""
    with suppress(OSError):
        if Path(f"/proc/{pid}/ns/net").samefile("/proc/self/ns/net"):
            with closing(SockDiag()) as kernel:
                return [(one.local_port, str(one.inode)) for one in kernel.listening_sockets()]
    return list(_read_listeners(pid))


def _read_listeners(pid: int) -> Iterator[tuple[int, str]]:
    for table in ("tcp", "tcp6"):
        with suppress(OSError), Path(f"/proc/{pid}/net/{table}").open(encoding="ascii") as file:
            next(file)
            for line in file:
                fields = line.split()
                if fields[3] == _LISTEN:
                    yield int(fields[1].rpartition(":")[2], 16), fields[9]

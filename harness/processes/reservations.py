"""Ports and GPUs for one graph that no other graph on this machine is given at the same time.

A reservation is an abstract Unix socket: the kernel gives its name to one process of a network namespace at a time, and takes it
back when that process is gone, however it went. So graphs can run side by side without a lock file that somebody has to clean up.

Ports lie below the range from which the kernel picks ports for outgoing connections (a port there may be taken between its
drawing and its use), and below 32768, since Dynamo reads one of its ports as a 16-bit number with a sign.
"""

from __future__ import annotations

import errno
import itertools
import random
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from graphquake.harness.errors import GraphError
from graphquake.harness.processes.gpus import visible_gpus

FIRST_PORT: Final = 10_000
END_PORT: Final = 32_768
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


class Reservations:
    """What one graph has to itself, until it is closed."""

    def __init__(self) -> None:
        self._names: list[socket.socket] = []
        self._turn = itertools.count()
        # A generator of its own: drawing ports must not disturb anybody's seed.
        self._random = random.SystemRandom()

    def port(self) -> int:
        """A TCP port that nobody listens on or has reserved.

        Raises:
            GraphError: if there is none.
        """
        for port in self._random.sample(range(FIRST_PORT, _end_port()), k=1000):
            if self._reserve(f"port-{port}"):
                if _is_free(port):
                    return port
                self._names.pop().close()
        raise GraphError(f"no free TCP port between {FIRST_PORT} and {_end_port()}")

    def gpus(self, count: int, *, share: bool = False) -> list[str]:
        """So many GPUs, as CUDA_VISIBLE_DEVICES names them.

        Args:
            share: others may have them as well; each call begins where the one before it ended.

        Raises:
            GraphError: if there are not as many left, or as many at all.
        """
        there = visible_gpus()
        if share and len(there) >= count:
            return [there[next(self._turn) % len(there)] for _ in range(count)]
        found: list[str] = []
        for gpu in there:
            if len(found) < count and self._reserve(f"gpu-{gpu}"):
                found.append(gpu)
        if len(found) < count:
            raise GraphError(
                f"asks for {count} GPUs; this machine shows {len(there)}, of which {len(found)} are free"
                f"{' (replicas can share them: --share-gpus)' if len(there) >= count else ''}"
            )
        return found

    def close(self) -> None:
        """Give everything back."""
        while self._names:
            self._names.pop().close()

    def _reserve(self, name: str) -> bool:
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0graphquake-{name}")
        except OSError:
            held.close()
            return False
        self._names.append(held)
        return True


def _end_port() -> int:
    with suppress(OSError, ValueError):
        ephemeral = int(_RANGE.read_text(encoding="ascii").split()[0])
        if ephemeral >= FIRST_PORT + 2000:
            return min(END_PORT, ephemeral)
    return END_PORT


def _is_free(port: int) -> bool:
    """Whether nobody holds it, on any address: an empty one means all of them."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            with socket.socket(family) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(("", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
    return True

"""Reserve ports and GPUs for one graph, so that no other graph on this machine gets the same ones.

A reservation is an abstract Unix socket. The kernel gives its name to one process of a network namespace at a time, and frees it when
that process ends for any reason. Graphs can therefore run side by side without a lock file that could be left behind.

Ports lie below the range from which the kernel picks ports for outgoing connections. A port in that range may be taken between its
reservation and its use. They also lie below 32768, because Dynamo reads one of its ports as a signed 16-bit number.
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
from graphquake.harness.processes.resources.gpus import visible_gpus

FIRST_PORT: Final = 10_000
END_PORT: Final = 32_768
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


class Reservations:
    """Reserves ports and GPUs for one graph. They stay reserved until `close`."""

    def __init__(self) -> None:
        self._names: list[socket.socket] = []
        self._turn = itertools.count()
        # A separate generator: drawing ports must not change the numbers drawn from a test's seed.
        self._random = random.Random()

    def port(self) -> int:
        """Reserve a free TCP port.

        Raises:
            GraphError: if no port is free.
        """
        for port in self._random.sample(range(FIRST_PORT, _end_port()), k=1000):
            if self._reserve(f"port-{port}"):
                if _is_free(port):
                    return port
                self._names.pop().close()
        raise GraphError(f"no free TCP port between {FIRST_PORT} and {_end_port()}")

    def gpus(self, count: int, *, share: bool = False) -> list[str]:
        """Choose GPUs for one replica. GPUs that are not shared are reserved.

        Args:
            count: the number of GPUs.
            share: if true, several replicas may use the same GPU. If the machine shows at least `count` GPUs, nothing is reserved.
                Each call then begins with the GPU after the last one of the call before.

        Returns:
            `count` names, as in CUDA_VISIBLE_DEVICES.

        Raises:
            GraphError: if the machine shows fewer GPUs, or, without `share`, if fewer of them are free.
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
        """Free all reservations."""
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
    """True if no socket holds the port on any address."""
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

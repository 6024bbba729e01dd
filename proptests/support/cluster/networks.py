"""Network namespaces for the pods of the test cluster, made by the hub of launched graphs. The API server is there at the hub's address."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from graphquake.harness.processes.guard_client import Guard
from graphquake.harness.processes.network.addresses import HUB
from graphquake.harness.processes.network.client import Hub

from support.cluster import policy_hub


@dataclass
class _Child:
    pid: int

    def close(self) -> None:
        """Nothing is held."""


class PodNetworks:
    """The namespaces of one node. It starts the hub itself, in place of a guard. `close` it.

    Args:
        enforces: true if NetworkPolicies are followed. A network plugin may also ignore them.
    """

    def __init__(self, *, enforces: bool = True) -> None:
        self.enforces = enforces
        self.hub = Hub()
        self._process: subprocess.Popen[bytes] | None = None

    async def spawn(
        self, key: str, argv: list[str], env: Mapping[str, str], cwd: str, log: str
    ) -> _Child:
        """Start the hub, with the rules of NetworkPolicies."""
        del key
        argv = [*argv[: argv.index("-m")], policy_hub.__file__, *argv[argv.index("-m") + 2 :]]
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with Path(log).open("ab") as file:  # noqa: ASYNC230 # a test may block
            self._process = subprocess.Popen(argv, env={**env}, cwd=cwd, stdout=file, stderr=file)
        return _Child(self._process.pid)

    async def begin(self, folder: Path) -> None:
        """Start the hub."""
        await self.hub.open(cast("Guard", self), os.environ, folder, [])

    async def add(self, address: str) -> str:
        """Make the namespace of a pod, and return its path."""
        made = await self.hub.ask("open", [address])
        path: str = made["namespaces"][address]
        return path

    def new_socket(self) -> socket.socket:
        """A TCP socket from which all pods can be reached."""
        return self.hub.socket_factory(None)

    def listener(self, port: int) -> socket.socket:
        """A socket that listens where pods can reach it."""
        made = self.new_socket()
        made.bind((HUB, port))
        made.listen(128)
        return made

    def close(self) -> None:
        """End the hub. The kernel then removes the namespaces."""
        self.hub.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

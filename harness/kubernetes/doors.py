"""Doors: local ports that lead to the port of whichever pod is in a place, through the API server.

A door is open while the pod in its place is ready, and shut otherwise, as a Service sends clients only to ready pods. A shut door refuses
connections, so a client goes to another entry at once. The number of the local port stays the same for the whole life of the target.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.port_forward import PortForward

HOST = "127.0.0.1"
BACKLOG = 128


@dataclass
class Door:
    """One door. `shut` it before it is forgotten.

    Args:
        client: the API server.
        namespace: the namespace of the pods.
        remote: the port of the pod.
    """

    client: Client
    namespace: str
    remote: int
    port: int = 0
    _way: PortForward | None = None
    _ways: list[PortForward] = field(default_factory=list)
    _server: asyncio.Server | None = None
    _holder: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        # This socket never listens. It keeps the number of the port for this door while the door is shut.
        self._holder = self._bound(0)
        self.port = self._holder.getsockname()[1]

    def _bound(self, port: int) -> socket.socket:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind((HOST, port))
        return one

    async def open_to(self, pod: str) -> None:
        """Let new connections through to a pod."""
        if self._server is not None and self._way is not None and self._way.pod == pod:
            return
        self.shut()
        self._way = PortForward(self.client, self.namespace, pod, self.remote, self.port)
        self._ways = [*(one for one in self._ways if one.is_busy), self._way]
        # The server is known before anything is awaited, so that `shut` closes it, also if this task is cancelled.
        bound = self._bound(self.port)
        self._server = await asyncio.start_server(
            self._way.accept, sock=bound, backlog=BACKLOG, start_serving=False
        )
        await self._server.start_serving()

    def shut(self) -> None:
        """Refuse new connections. Those that are open go on, until the pod ends them."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def close(self) -> None:
        """Shut the door, and cut all connections."""
        self.shut()
        self._holder.close()
        for way in self._ways:
            await way.close()

"""Carry TCP connections to a port of a pod, through the API server.

Each connection is a WebSocket with two channels: the first byte of each message is 0 for data and 1 for an error. Clusters older than 1.29
speak this protocol as well. `kubectl` uses a newer one, which is not needed here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import PODS

PROTOCOLS: Final = ("v4.channel.k8s.io",)
CHUNK_BYTES: Final = 64 << 10
# Each channel begins with the number of the port, in two bytes.
PORT_HEAD_BYTES: Final = 2
# The number of remembered reasons why the pod did not take a connection.
REFUSED_MAX: Final = 10


@dataclass
class PortForward:
    """A local port, each of whose connections goes to a port of a pod. Made by `forwarded`.

    Attributes:
        port: the local port, on 127.0.0.1.
        refused: the reasons of connections that the pod did not take, the latest last.
    """

    client: Client
    namespace: str
    pod: str
    remote: int
    port: int = 0
    refused: list[str] = field(default_factory=list)
    _links: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def is_busy(self) -> bool:
        """True while a connection is open."""
        return bool(self._links)

    def cut(self) -> None:
        """Cut all open connections."""
        for link in self._links:
            link.cancel()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one new connection to the pod, in a task of its own."""
        link = asyncio.get_running_loop().create_task(self._carry(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def close(self) -> None:
        """Cut all connections, and wait until they are gone."""
        self.cut()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path = PODS.path(self.namespace, self.pod, "portforward")
            query = [("ports", str(self.remote))]
            socket = await self.client.websocket(path, query, PROTOCOLS)
            try:
                if await self._both_ways(socket, reader, writer):
                    # The pod has ended the connection. What it sent before is still delivered.
                    writer.close()
            finally:
                await socket.close()
        except ApiError as error:
            self._note(str(error))
        finally:
            if not writer.is_closing():
                writer.transport.abort()

    async def _both_ways(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Carry bytes until one side ends. True if the pod has ended the connection, false if something failed."""
        out = asyncio.get_running_loop().create_task(_to_pod(reader, socket))
        try:
            return await self._from_pod(socket, writer)
        finally:
            out.cancel()
            with suppress(asyncio.CancelledError):
                await out

    async def _from_pod(
        self, socket: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter
    ) -> bool:
        begun: set[int] = set()
        async for message in socket:
            if message.type != aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel not in begun:
                begun.add(channel)
                data = data[PORT_HEAD_BYTES:]
            if not data:
                continue
            if channel % 2:  # the channel of errors
                self._note(data.decode("utf-8", "replace"))
                return False
            if writer.is_closing():
                return False
            writer.write(data)
            try:
                await writer.drain()
            except ConnectionError:
                return False
        return socket.exception() is None

    def _note(self, why: str) -> None:
        self.refused = [*self.refused[1 - REFUSED_MAX :], why]


async def _to_pod(reader: asyncio.StreamReader, socket: aiohttp.ClientWebSocketResponse) -> None:
    with suppress(aiohttp.ClientError, OSError):
        while data := await reader.read(CHUNK_BYTES):
            await socket.send_bytes(b"\0" + data)
    await socket.close()


@asynccontextmanager
async def forwarded(
    client: Client, namespace: str, pod: str, port: int
) -> AsyncIterator[PortForward]:
    """Open a local port whose connections go to a port of a pod, until the context ends.

    Each connection has its own WebSocket. If the pod or the API server ends it, the local connection is reset.
    """
    forward = PortForward(client, namespace, pod, port)
    server = await asyncio.start_server(forward.accept, "127.0.0.1", 0)
    forward.port = server.sockets[0].getsockname()[1]
    try:
        yield forward
    finally:
        server.close()
        await forward.close()
        await server.wait_closed()

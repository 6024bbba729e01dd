"""A TCP proxy in front of a real API server. Tests cut it, as they cut the test cluster's own API server, and it counts bytes.

TLS goes through it unchanged. So requests are noted where the client sends them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from graphquake.harness.kubernetes.api.client import Client

CHUNK_BYTES: Final = 64 << 10


class Front:
    """The proxy. `opened` makes it.

    Attributes:
        port: its port at 127.0.0.1.
        is_away: true while each new connection is cut.
        requests: the requests of clients of this process so far, as `METHOD path?query`. Those of the tests are among them.
        sent_bytes: the bytes that clients sent, with those of TLS.
        received_bytes: the bytes that they received.
        connections: the number of connections so far.
    """

    def __init__(self, url: str) -> None:
        to = urlsplit(url)
        self._to = to.hostname or "", to.port or 443
        self.port = 0
        self.is_away = False
        self.requests: list[str] = []
        self.sent_bytes = self.received_bytes = self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._servers: list[asyncio.Server] = []

    def go_away(self) -> None:
        """Cut every connection, and each new one, until `is_away` is false again."""
        self.is_away = True
        for one in self._open:
            one.transport.abort()

    cut = go_away

    async def listen(self, at: socket.socket) -> None:
        """Take connections of pods, too, which have a network of their own."""
        self._servers.append(await asyncio.start_server(self._carry, sock=at))

    def close(self) -> None:
        """End the proxy."""
        for server in self._servers:
            server.close()
        self.go_away()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there: asyncio.StreamWriter | None = None
        try:
            if self.is_away:
                return
            answers, there = await asyncio.open_connection(*self._to)
            self.connections += 1
            self._open |= {writer, there}
            await asyncio.gather(
                self._copy(reader, there, is_sent=True), self._copy(answers, writer, is_sent=False)
            )
        except OSError:
            pass
        finally:
            for one in filter(None, (writer, there)):
                self._open.discard(one)
                one.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_sent: bool
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if is_sent:
                self.sent_bytes += len(data)
            else:
                self.received_bytes += len(data)
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Front]:
    """Run a proxy to the API server at this URL."""
    front = Front(url)
    at = socket.create_server(("127.0.0.1", 0))
    front.port = at.getsockname()[1]
    await front.listen(at)
    with noted(front.port, front.requests):
        try:
            yield front
        finally:
            front.close()


@contextmanager
def noted(port: int, requests: list[str]) -> Iterator[None]:
    """Note each request that a client of this process sends to the proxy at this port."""
    once, stream, websocket = Client._once, Client.stream, Client.websocket

    def note(
        client: Client, method: str, path: str, query: Any, body: Mapping[str, Any] | None = None
    ) -> None:
        if not client.access.server.endswith(f":{port}"):
            return
        rows = dict(query or {}).items() if isinstance(query, Mapping) else query or []
        dry = [("dryRun", "All")] if body and body.get("dryRun") else []
        text = urlencode([*((key, value) for key, value in rows if value), *dry])
        requests.append(f"{method} {path}{'?' if text else ''}{text}")

    async def noted_once(self: Client, method: str, path: str, query: Any, body: Any, form: str) -> Any:  # fmt: skip
        note(self, method, path, query, body if method == "DELETE" else None)
        return await once(self, method, path, query, body, form)

    async def noted_stream(self: Client, path: str, query: Any, silence_s: float) -> Any:
        note(self, "GET", path, query)
        return await stream(self, path, query, silence_s)

    async def noted_websocket(self: Client, path: str, query: Any, protocols: Any) -> Any:
        note(self, "GET", path, query)
        return await websocket(self, path, query, protocols)

    Client._once, Client.stream, Client.websocket = noted_once, noted_stream, noted_websocket  # type: ignore[method-assign] # to count requests
    try:
        yield
    finally:
        Client._once, Client.stream, Client.websocket = once, stream, websocket  # type: ignore[method-assign] # as before

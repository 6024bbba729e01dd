"""The protocol between the processes of the reference graph: one TCP connection for each call, with frames of JSON and bytes.

A call begins with one message of the caller. The server answers with one or more messages. A caller cancels a call by closing the
connection. The handler of the call is then cancelled at once, so the server does not work for a client that left. If a process dies, its
connections close, so the other side notices at once. While a server handles a call, it sends heartbeats. They show that the server is busy
and does not hang. Without heartbeats, callers would give up on busy servers and repeat their calls, so an overload would never end.

The same port also answers HTTP `GET` requests for probes and metrics. A frame never begins with the letters `GET`, because its length would
then exceed `FRAME_MAX_BYTES`.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeAlias

LOOPBACK: Final = "127.0.0.1"
# A local connect takes well under 1 ms. It takes nearly as long as this limit only if the server is stopped or its backlog is full.
CONNECT_MAX_S: Final = 0.5
# The largest frame, message and bytes together. It has room for the KV of the longest context.
FRAME_MAX_BYTES: Final = 1 << 26
PROBE_MAX_S: Final = 2.0
NO_ANSWER: Final = "no answer"
_HEAD: Final = struct.Struct(">II")
_HTTP: Final = b"GET "

Message: TypeAlias = dict[str, Any]
# The message that a server sends every `BEAT_EVERY_S` seconds while it handles a call.
BEAT: Final[Message] = {"beat": True}
BEAT_EVERY_S: Final = 0.25
Page: TypeAlias = Callable[[], tuple[int, str]]


class Gone(Exception):
    """The other side closed the connection, could not be reached, or sent an invalid message."""


class Call:
    """The connection of one call, as the caller or the server uses it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, message: Message, body: bytes = b"") -> None:
        """Send one message, and bytes after it.

        Raises:
            Gone: if the other side has closed the connection.
        """
        head = json.dumps(message, separators=(",", ":")).encode()
        try:
            self._writer.write(_HEAD.pack(len(head), len(body)) + head + body)
            await self._writer.drain()
        except OSError as error:
            raise Gone(str(error)) from None

    async def receive(self, silence_s: float | None = None) -> tuple[Message, bytes]:
        """Wait for the next message that is not a heartbeat. Returns the message and the bytes after it.

        Args:
            silence_s: the time in seconds for which the other side may send nothing, not even a heartbeat. None means no limit. The answer
                itself may take longer, because a server sends heartbeats while it works.

        Raises:
            Gone: if the other side sends nothing for that time, or closes the connection.
        """
        try:
            while True:
                async with asyncio.timeout(silence_s):
                    head = await self._reader.readexactly(_HEAD.size)
                    message, body = await _read_frame(self._reader, head)
                if message != BEAT:
                    return message, body
        except TimeoutError:
            raise Gone("silent") from None
        except (OSError, EOFError) as error:
            raise Gone(str(error)) from None

    async def hung_up(self) -> None:
        """Wait until the other side closes the connection. Only for a side that does not expect further messages."""
        with suppress(OSError):
            await self._reader.read(1)

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._writer.close()


async def _beat(caller: Call) -> None:
    with suppress(Gone):
        while True:
            await asyncio.sleep(BEAT_EVERY_S)
            await caller.send(BEAT)


async def _read_frame(reader: asyncio.StreamReader, head: bytes) -> tuple[Message, bytes]:
    message_bytes, body_bytes = _HEAD.unpack(head)
    if message_bytes + body_bytes > FRAME_MAX_BYTES:
        raise Gone(f"a frame of {message_bytes + body_bytes} bytes")
    message: Message = json.loads(await reader.readexactly(message_bytes))
    return message, await reader.readexactly(body_bytes)


async def call(address: str, message: Message, body: bytes = b"") -> Call:
    """Open a connection to a server and send the first message. Returns the call, which the caller has to close.

    Args:
        address: `HOST:PORT` of the server.
        message: the first message.
        body: the bytes after it.

    Raises:
        Gone: if the server does not accept the call.
    """
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(CONNECT_MAX_S):
            reader, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError) as error:
        raise Gone(f"{address}: {str(error) or NO_ANSWER}") from None
    opened = Call(reader, writer)
    try:
        await opened.send(message, body)
    except BaseException:
        opened.close()
        raise
    return opened


async def ask(address: str, message: Message, within_s: float) -> tuple[Message, bytes]:
    """Call a server with one message, and return its first answer with the bytes after it.

    Raises:
        Gone: if the server does not accept the call, or does not answer within `within_s` seconds.
    """
    opened = await call(address, message)
    try:
        async with asyncio.timeout(within_s):
            return await opened.receive()
    except TimeoutError:
        raise Gone(f"{address}: no answer within {within_s:g} s") from None
    finally:
        opened.close()


class Server:
    """Accepts calls on one port.

    Args:
        on_call: the handler of calls. It gets the call and its first message, and is cancelled when the caller closes the connection.
        pages: the answers to HTTP `GET`, by path. Each is a function that returns the status and the text of the answer.
    """

    def __init__(
        self,
        on_call: Callable[[Call, Message], Awaitable[None]],
        pages: Mapping[str, Page],
    ) -> None:
        self._on_call = on_call
        self._pages = pages
        self._server: asyncio.Server

    async def open(self, host: str, port: int) -> None:
        """Start to listen on this port of this address."""
        self._server = await asyncio.start_server(self._serve, host, port, backlog=512)

    def close(self) -> None:
        """Accept no more calls. Running calls continue."""
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = Call(reader, writer)
        try:
            head = await reader.readexactly(len(_HTTP))
            if head == _HTTP:
                await self._show(reader, writer)
                return
            head += await reader.readexactly(_HEAD.size - len(head))
            message, _ = await _read_frame(reader, head)
            await self._handle(caller, message)
        except (OSError, EOFError, Gone, ValueError, TimeoutError):
            pass  # the caller has gone, or does not use this protocol
        finally:
            caller.close()

    async def _handle(self, caller: Call, message: Message) -> None:
        handler = asyncio.ensure_future(self._on_call(caller, message))
        hung_up = asyncio.ensure_future(caller.hung_up())
        beating = asyncio.ensure_future(_beat(caller))
        try:
            await asyncio.wait((handler, hung_up), return_when=asyncio.FIRST_COMPLETED)
        finally:
            hung_up.cancel()
            beating.cancel()
            handler.cancel()
            # The handler has to release its resources before the call ends.
            with suppress(asyncio.CancelledError, Gone):
                await handler

    async def _show(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(PROBE_MAX_S):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 1)[0].decode("latin-1")
            page = self._pages.get(path)
            status, text = (404, "no such page\n") if page is None else page()
            said = {200: "OK", 404: "Not Found"}.get(status, "Service Unavailable")
            writer.write(
                f"HTTP/1.1 {status} {said}\r\nContent-Type: text/plain\r\n"
                f"Content-Length: {len(text.encode())}\r\nConnection: close\r\n\r\n{text}".encode()
            )
            await writer.drain()

"""The protocol between the processes of the reference graph: one TCP connection a call, with frames of JSON and bytes.

A call opens with one message of the caller. The other side answers with one or more messages. To close the connection is to cancel the
call. The handler is cancelled at once, so the server does no work for a client that left. The death of a process closes its connections and
is therefore seen at once. While a call is being handled, its server sends beats, which distinguish a busy server from one that hangs.
Without this, callers would give up on busy servers, and every overload would last.

The same port answers `GET` for probes and metrics: no frame can begin with those letters.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeAlias

LOOPBACK: Final = "127.0.0.1"
# A loopback connect takes well under 1 ms. Only a peer that is stopped, or a full backlog, comes near this.
CONNECT_MAX_S: Final = 0.5
# The longest message: the KV of a whole context.
FRAME_MAX_BYTES: Final = 1 << 26
PROBE_MAX_S: Final = 2.0
_HEAD: Final = struct.Struct(">II")
_HTTP: Final = b"GET "

Message: TypeAlias = dict[str, Any]
# The frame that a server sends while it works on a call and has no result yet.
BEAT: Final[Message] = {"beat": True}
BEAT_EVERY_S: Final = 0.25
Page: TypeAlias = Callable[[], tuple[int, str]]


class Gone(Exception):
    """The other side closed the connection, could not be reached, or sent an invalid message."""


class Call:
    """One connection, seen from either side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, message: Message, body: bytes = b"") -> None:
        """Send one message.

        Raises:
            Gone: if the other side is.
        """
        head = json.dumps(message, separators=(",", ":")).encode()
        try:
            self._writer.write(_HEAD.pack(len(head), len(body)) + head + body)
            await self._writer.drain()
        except OSError as error:
            raise Gone(str(error)) from None

    async def receive(self, silence_s: float | None = None) -> tuple[Message, bytes]:
        """The next message and its bytes.

        Args:
            silence_s: the time for which the other side may show no sign of life. There is no limit if it is None. It may take longer than
                that to answer: as long as a server works on a call it sends a beat now and then.

        Raises:
            Gone: if there is none.
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
        """Wait until the other side closes. It is meant for a side that awaits no further message."""
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


async def call(port: int, message: Message, body: bytes = b"") -> Call:
    """Open a connection and send the first message.

    Raises:
        Gone: if the server does not accept the call.
    """
    try:
        async with asyncio.timeout(CONNECT_MAX_S):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
    except (OSError, TimeoutError) as error:
        raise Gone(f"port {port}: {error or 'no answer'}") from None
    opened = Call(reader, writer)
    try:
        await opened.send(message, body)
    except BaseException:
        opened.close()
        raise
    return opened


async def ask(port: int, message: Message, within_s: float) -> tuple[Message, bytes]:
    """Send one message and receive one answer.

    Raises:
        Gone: if no answer comes within that time, in seconds.
    """
    opened = await call(port, message)
    try:
        async with asyncio.timeout(within_s):
            return await opened.receive()
    except TimeoutError:
        raise Gone(f"port {port}: no answer within {within_s:g} s") from None
    finally:
        opened.close()


class Server:
    """Accepts calls on one port.

    Args:
        on_call: handles one call. It is cancelled when the caller hangs up.
        pages: the answers to `GET`, by path: status and text.
    """

    def __init__(
        self,
        on_call: Callable[[Call, Message], Awaitable[None]],
        pages: Mapping[str, Page],
    ) -> None:
        self._on_call = on_call
        self._pages = pages
        self._server: asyncio.Server

    async def open(self, port: int) -> None:
        """Start to listen on loopback."""
        self._server = await asyncio.start_server(self._serve, LOOPBACK, port, backlog=512)

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
            pass  # the caller went, or is none of ours
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
            # Whatever the handler holds has to be given back before the call is over.
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

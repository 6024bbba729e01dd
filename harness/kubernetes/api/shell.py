"""Run commands in a container, through the API server.

The stream is a WebSocket with numbered channels: the first byte of each message is the number of its channel.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import PODS

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
STATUS: Final = 3
PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")


@dataclass(frozen=True, slots=True)
class Ran:
    """The result of a command in a container.

    Attributes:
        status: the exit status.
        out: the text that the command wrote to its standard output.
        err: the text that it wrote to its standard error, or the reason why it could not be started.
    """

    status: int
    out: str
    err: str


def _exit_status(said: bytes) -> tuple[int, str]:
    """Return the exit status in the last message of a command, and the reason if it could not be started."""
    end: dict[str, Any] = json.loads(said)
    if end.get("status") == "Success":
        return 0, ""
    causes = (end.get("details") or {}).get("causes") or []
    codes = [one["message"] for one in causes if one.get("reason") == "ExitCode"]
    return (int(codes[0]), "") if codes else (-1, str(end.get("message", "")))


class Shell:
    """A command that runs in a container, with its standard input and output."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.status: int | None = None
        self.err = ""

    async def write(self, data: bytes) -> None:
        """Write to the standard input.

        Raises:
            ApiError: if the connection is lost.
        """
        try:
            await self._socket.send_bytes(bytes([STDIN]) + data)
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(f"the connection to a command in a pod is lost: {error}") from None

    async def read(self) -> AsyncIterator[bytes]:
        """Yield the standard output, until the command ends or the connection is lost. `status` is None if it was lost."""
        async for message in self._socket:
            if message.type != aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel == STDOUT and data:
                yield data
            elif channel == STDERR:
                self.err += data.decode("utf-8", "replace")
            elif channel == STATUS:
                self.status, why = _exit_status(data)
                self.err += why
                return


@asynccontextmanager
async def shell(
    client: Client, namespace: str, pod: str, container: str, argv: Sequence[str], *, stdin: bool = True
) -> AsyncIterator[Shell]:  # fmt: skip
    """Run a command in a container. When the context ends, the connection is closed. The command then sees the end of its input.

    Raises:
        ApiError: if the command can't be started.
    """
    query = [*(("command", one) for one in argv), ("container", container)]
    query += [("stdout", "true"), ("stderr", "true"), *([("stdin", "true")] if stdin else [])]
    path = PODS.path(namespace, pod, "exec")
    socket = await client.websocket(path, query, PROTOCOLS)
    try:
        yield Shell(socket)
    finally:
        await socket.close()


async def run(client: Client, namespace: str, pod: str, container: str, argv: Sequence[str], within_s: float) -> Ran:  # fmt: skip
    """Run a command in a container, and wait for its end.

    Raises:
        ApiError: if the command can't be started, does not end in `within_s` seconds, or the connection is lost.
    """
    what = f'"{argv[0]}" in {namespace}/{pod}'
    out = b""
    async with shell(client, namespace, pod, container, argv, stdin=False) as begun:
        try:
            async with asyncio.timeout(within_s):
                async for data in begun.read():
                    out += data
        except TimeoutError:
            raise ApiError(f"{what} did not end within {within_s:g} s") from None
    if begun.status is None:
        raise ApiError(f"{what}: the connection was lost before it ended")
    return Ran(begun.status, out.decode("utf-8", "replace"), begun.err)

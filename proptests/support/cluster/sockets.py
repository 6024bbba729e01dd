"""Streams to the containers of the test cluster: `exec`, `portforward` and `log`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from aiohttp import WSMsgType, web

from graphquake.harness.kubernetes.api.objects import Json

from support.cluster.store import Refused


class Node(Protocol):
    """The questions that a stream asks about a pod."""

    def inside(self, pod: Json, container: str, argv: list[str]) -> list[str]:
        """The command line that runs a command within a container."""
        ...

    def environment(self, pod: Json, container: str) -> dict[str, str]:
        """The environment variables of a container."""
        ...

    async def connect(
        self, pod: Json, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to a port of the pod."""
        ...

    def log(self, pod: Json, container: str, *, previous: bool) -> Path:
        """The log of the present or the previous container."""
        ...


def container_of(request: web.Request, pod: Json) -> str:
    """The container that a request names, or the first one."""
    known = [one["name"] for one in pod["spec"]["containers"]]
    name = request.query.get("container") or known[0]
    if name not in known:
        raise Refused(400, "BadRequest", f"container {name} is not valid for pod {pod['metadata']['name']}")  # fmt: skip
    return name


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    """Run several tasks until the first one ends, then end the others."""
    tasks = [asyncio.get_running_loop().create_task(one) for one in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def exec_handler(node: Node) -> Callable[[web.Request, Json], Awaitable[web.StreamResponse]]:
    """Commands in a container. The command ends with its connection, as far as it reads its input."""

    async def handle(request: web.Request, pod: Json) -> web.StreamResponse:
        container = container_of(request, pod)
        argv = node.inside(pod, container, request.query.getall("command"))
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))
        await socket.prepare(request)
        pipe = asyncio.subprocess.PIPE
        stdin = pipe if request.query.get("stdin") == "true" else asyncio.subprocess.DEVNULL
        env = node.environment(pod, container)
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=stdin, stdout=pipe, stderr=pipe, env=env
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            await _together(_feed(socket, process.stdin), _told(socket, process))
        finally:
            if process.stdin is not None:
                process.stdin.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
        await socket.close()
        return socket

    return handle


async def _feed(socket: web.WebSocketResponse, stdin: asyncio.StreamWriter | None) -> None:
    async for message in socket:
        if message.type == WSMsgType.BINARY and message.data[:1] == b"\0" and stdin is not None:
            stdin.write(message.data[1:])
            with suppress(ConnectionError):
                await stdin.drain()
        elif message.type == WSMsgType.BINARY and message.data[:1] == b"\xff" and stdin is not None:
            stdin.close()  # v5: the end of one channel


async def _told(socket: web.WebSocketResponse, process: asyncio.subprocess.Process) -> None:
    async def tell(channel: int, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(1 << 16):
            await socket.send_bytes(bytes([channel]) + data)

    assert process.stdout is not None
    assert process.stderr is not None
    await asyncio.gather(tell(1, process.stdout), tell(2, process.stderr))
    code = await process.wait()
    status = 128 - code if code < 0 else code
    end: Json = {"metadata": {}, "status": "Success"}
    if status:
        code = status if status > 0 else 128 - status
        causes = [{"reason": "ExitCode", "message": str(code)}]
        end = {"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}  # fmt: skip
    await socket.send_bytes(b"\x03" + json.dumps(end).encode())


def port_handler(node: Node) -> Callable[[web.Request, Json], Awaitable[web.StreamResponse]]:
    """A connection to a port of a pod, on two channels."""

    async def handle(request: web.Request, pod: Json) -> web.StreamResponse:
        port = int(request.query["ports"])
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        for channel in (0, 1):
            await socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
        try:
            reader, writer = await node.connect(pod, port)
        except OSError as error:
            with suppress(ConnectionError):
                said = f"error forwarding port {port}: {error}"
                await socket.send_bytes(b"\x01" + said.encode())
            await socket.close()
            return socket

        async def out() -> None:
            with suppress(ConnectionError):
                while data := await reader.read(1 << 16):
                    await socket.send_bytes(b"\0" + data)

        async def back() -> None:
            with suppress(ConnectionError):
                async for message in socket:
                    if message.type == WSMsgType.BINARY and message.data[:1] == b"\0":
                        writer.write(message.data[1:])
                        await writer.drain()

        try:
            await _together(out(), back())
        finally:
            writer.transport.abort()
            await socket.close()
        return socket

    return handle


def log_handler(node: Node) -> Callable[[web.Request, Json], Awaitable[web.StreamResponse]]:
    """The log of a container, also as it grows."""

    async def handle(request: web.Request, pod: Json) -> web.StreamResponse:
        previous = request.query.get("previous") == "true"
        path = node.log(pod, container_of(request, pod), previous=previous)
        if not path.exists():
            raise Refused(400, "BadRequest", "the container has not been started yet")
        if request.query.get("follow") != "true":
            return web.Response(body=path.read_bytes(), content_type="text/plain")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        with path.open("rb") as log, suppress(ConnectionError):
            while node.log(pod, container_of(request, pod), previous=previous) == path:
                while data := log.read(1 << 16):
                    await response.write(data)
                if request.transport is None or request.transport.is_closing():
                    break
                await asyncio.sleep(0.02)
            await response.write(log.read())
        return response

    return handle

"""A server that gives prepared answers, and a client of the Kubernetes API that asks it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.credentials import Fixed
from graphquake.harness.kubernetes.api.kubeconfig import Access

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Prepared:
    """A server that gives one prepared answer after another, and repeats the last one. `asked` holds what it was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[web.Request] = []
        self.bodies: list[str] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Give the next answer."""
        self.asked.append(request)
        self.bodies.append(await request.text())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


def says(said: dict[str, Any], status: int = 200, **headers: str) -> Answer:
    """An answer in JSON."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(
            said, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    return answer


def watched(*events: tuple[str, dict[str, Any]]) -> Answer:
    """The answer of a watch: some events, then its end."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for kind, item in events:
            await response.write(json.dumps({"type": kind, "object": item}).encode() + b"\n")
        return response

    return answer


async def cut(request: web.Request) -> web.StreamResponse:
    """Break the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hang(request: web.Request) -> web.StreamResponse:
    """Begin a watch, and never say anything."""
    response = web.StreamResponse()
    await response.prepare(request)
    while request.transport is not None and not request.transport.is_closing():
        await asyncio.sleep(0.02)
    return response


@asynccontextmanager
async def served(
    server: Prepared, tls: ssl.SSLContext | None = None, **options: float
) -> AsyncIterator[Client]:
    """A client of the prepared server."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    access = Access(f"http://127.0.0.1:{port}", "test", "default", Fixed({"Authorization": "me"}))
    try:
        async with Client(access, **options) as client:
            yield client
    finally:
        await runner.cleanup()

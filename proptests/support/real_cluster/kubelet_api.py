"""The HTTPS server of a kubelet, which a real API server asks for `exec`, `portforward` and `log`."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from graphquake.harness.kubernetes.api.objects import PODS, Json

from support.cluster.kubelet import Kubelet
from support.cluster.sockets import exec_handler, log_handler, port_handler
from support.cluster.store import Refused

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def certificate(folder: Path) -> ssl.SSLContext:
    """Make a certificate that signs itself. The API server does not check it."""
    key, cert = folder / "kubelet.key", folder / "kubelet.crt"
    asked = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=node-0"]
    argv = [*asked, "-days", "30", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(argv, check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    return tls


@asynccontextmanager
async def serving(kubelet: Kubelet, folder: Path) -> AsyncIterator[int]:
    """Serve until the context ends. Yield the port."""

    def of_pod(handle: Callable[[web.Request, Json], Awaitable[web.StreamResponse]]) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            told = request.match_info
            try:
                pod = kubelet.store.get(PODS, told["namespace"], told["pod"])
                return await handle(_as_asked(request), pod)
            except Refused as error:
                return web.Response(status=error.status, text=error.message)

        return handler

    app = web.Application()
    where = "{namespace}/{pod}"
    for path, handle in (
        ("/exec/" + where + "/{container}", exec_handler(kubelet)),
        ("/portForward/" + where, port_handler(kubelet)),
        ("/containerLogs/" + where + "/{container}", log_handler(kubelet)),
    ):
        app.router.add_route("*", path, of_pod(handle))
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    tls = certificate(folder)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _as_asked(request: web.Request) -> web.Request:
    """The request as the client sent it. A kubelet's parameters have other names."""
    query = [("command", one) for one in request.query.getall("command", [])]
    query += [(key, request.query[key]) for key in ("follow", "previous") if key in request.query]
    if request.query.get("input") in {"1", "true"}:
        query.append(("stdin", "true"))
    if "port" in request.query:
        query.append(("ports", request.query["port"]))
    if "container" in request.match_info:
        query.append(("container", request.match_info["container"]))
    return request.clone(rel_url=request.rel_url.with_query(query))

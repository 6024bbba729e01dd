"""Tests of the exact OpenAI server: its answers and pages, its queue, clients that leave, and SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from graphquake.harness.graphs.exact import expected
from graphquake.harness.graphs.openai_worker import OpenAIWorker

from support.toys import in_loop

pytestmark = pytest.mark.simulated


@asynccontextmanager
async def serving(*options: str) -> AsyncIterator[tuple[OpenAIWorker, aiohttp.ClientSession]]:
    """Run a server in this event loop, with a client whose base URL is the server's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    parser = argparse.ArgumentParser()
    OpenAIWorker.options(parser)
    parser.set_defaults(host="127.0.0.1", port=port, name="worker 0", registries=[])
    quick = ("--prefill-ms", "0", "--token-ms", "0")
    worker = OpenAIWorker(parser.parse_args([*quick, *options]))
    await worker.open()
    await worker.listen()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            yield worker, client
    finally:
        await worker.close()


async def post(client: aiohttp.ClientSession, path: str, body: object) -> tuple[int, str]:
    """Send one request, and return the status and the body of its answer."""
    async with client.post(f"/v1/{path}", json=body) as response:
        return response.status, await response.text()


@in_loop
async def test_every_answer_is_exact() -> None:
    """Completions and chat answer as the oracle says, streamed or not. A prompt without a token gets status 400."""
    right = expected("hello", 5)
    async with serving("--model", "tiny") as (_, client):
        status, text = await post(client, "completions", {"prompt": "hello", "max_tokens": 5})
        assert (status, json.loads(text)["choices"][0]["text"]) == (200, right)
        chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
        status, text = await post(client, "chat/completions", chat)
        assert (status, json.loads(text)["choices"][0]["message"]["content"]) == (200, right)
        status, text = await post(client, "chat/completions", chat | {"stream": True})
        *events, done = [part[6:] for part in text.split("\n\n") if part]
        said = [json.loads(event)["choices"][0]["delta"]["content"] for event in events]
        assert ("".join(said), done) == (right, "[DONE]")
        assert (await post(client, "completions", {"prompt": "über"}))[0] == 400
        for page in ("model_info", "get_model_info", "server_info", "get_server_info"):
            async with client.get(f"/{page}") as response:
                assert (await response.json())["served_model_name"] == "tiny"
        async with client.get("/v1/models") as response:
            assert [one["id"] for one in (await response.json())["data"]] == ["tiny"]


@in_loop
async def test_requests_above_the_capacity_wait() -> None:
    """With capacity 2, two of three requests run and one waits. All are answered."""
    async with serving("--capacity", "2", "--token-ms", "10") as (worker, client):
        body = {"prompt": "hello", "max_tokens": 20}
        sent = [asyncio.ensure_future(post(client, "completions", body)) for _ in range(3)]
        while worker.in_flight < 3:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert worker.metrics() == {"worker_running": 2, "worker_waiting": 1}
        assert [status for status, _ in await asyncio.gather(*sent)] == [200] * 3
        assert worker.metrics() == {"worker_running": 0, "worker_waiting": 0}


@pytest.mark.parametrize("stream", [False, True])
@in_loop
async def test_a_client_that_leaves_frees_its_place(stream: bool) -> None:  # noqa: FBT001
    """If a client closes its connection, the work for its request ends long before its last token."""
    async with serving("--token-ms", "20") as (worker, client):
        body = {"prompt": "hello", "max_tokens": 2000, "stream": stream}
        leaving = asyncio.ensure_future(post(client, "completions", body))
        while not worker.metrics()["worker_running"]:
            await asyncio.sleep(0.001)
        leaving.cancel()
        async with asyncio.timeout(10):
            while worker.metrics()["worker_running"]:
                await asyncio.sleep(0.001)


@in_loop
async def test_a_drain_finishes_requests_and_accepts_no_connection() -> None:
    """While the server drains, new connections are refused. The request in flight gets its whole answer."""
    async with serving("--token-ms", "20") as (worker, client):
        body = {"prompt": "hello", "max_tokens": 20}
        running = asyncio.ensure_future(post(client, "completions", body))
        while not worker.metrics()["worker_running"]:
            await asyncio.sleep(0.001)
        draining = asyncio.ensure_future(worker.drain())
        await asyncio.sleep(0.05)
        with pytest.raises(aiohttp.ClientConnectorError):
            await post(client, "completions", body)
        status, text = await running
        assert (status, json.loads(text)["choices"][0]["text"]) == (200, expected("hello", 20))
        await draining

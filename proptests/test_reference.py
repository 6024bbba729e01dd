"""Tests of the live reference graph: its promises, its API, and its healing."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import aiohttp
import pytest

from graphquake.harness.history.events import BecameReady
from graphquake.harness.history.request import (
    Outcome,
)
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.reference.model import expected
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.spec.replica import Replica

from support.made import plan_of
from support.toys import in_loop, left_of
from support.undisturbed import run_live


@pytest.mark.parametrize(
    "steps",
    [
        ["kill decode 0", "respawn decode 0", "wait until ready", "terminate decode 1"],
        ["kill registry 0", "wait 0.20 s", "kill decode 1 rank"],
        ["burst 60 over 0.10 s, 50% leave", "kill prefill 0", "wait 0.10 s", "respawn prefill 0"],
        ["kill processor 0", "kill frontend 0"],
    ],
)
@in_loop
async def test_the_reference_graph_keeps_its_promises(tmp_path: Path, steps: list[str]) -> None:
    """The reference graph keeps all of its promises under kills, terminates, bursts and respawns, and leaves no process."""
    run = await run_live(load_graph("reference"), plan_of(*steps), tmp_path / "run")
    assert run.verdict.kind == "kept", run.verdict
    assert sum(request.outcome == Outcome.OK for request in run.history.requests) > 20
    assert left_of(os.getpid()) == []


@in_loop
async def test_the_api_of_the_reference_graph(tmp_path: Path) -> None:
    """Completions and chat answer right, streamed or not. A wrong request gets status 400 and a reason."""
    spec = load_graph("reference")
    async with Supervisor.launch(spec, tmp_path) as graph, aiohttp.ClientSession() as client:
        (entry,) = graph.entries()

        async def post(path: str, body: object) -> tuple[int, str]:
            async with client.post(f"{entry}/v1/{path}", json=body) as response:
                return response.status, await response.text()

        right = expected("hello", 5)
        status, text = await post("completions", {"prompt": "hello", "max_tokens": 5})
        assert (status, json.loads(text)["choices"][0]["text"]) == (200, right)
        chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
        status, text = await post("chat/completions", chat)
        assert (status, json.loads(text)["choices"][0]["message"]["content"]) == (200, right)
        status, text = await post("chat/completions", chat | {"stream": True})
        *events, done = [part[6:] for part in text.split("\n\n") if part]
        said = [json.loads(event)["choices"][0] for event in events]
        assert "".join(one["delta"]["content"] for one in said) == right
        assert (said[-1]["finish_reason"], done) == ("length", "[DONE]")
        for body, complaint in (
            ({"prompt": "hello", "max_tokens": 0}, "max_tokens: expected"),
            ({"prompt": "über", "max_tokens": 1}, "prompt: expected"),
            (["hello"], "not a JSON object"),
        ):
            status, text = await post("completions", body)
            assert (status, complaint in text) == (400, True), text
        async with client.get(f"{entry}/v1/models") as response:
            assert [one["id"] for one in (await response.json())["data"]] == ["reference"]


@in_loop
async def test_a_client_that_leaves_ends_the_work_for_it(tmp_path: Path) -> None:
    """Within two seconds of a client's leaving, no process counts its request any more."""
    spec = load_graph("reference")
    body = {"prompt": "hello", "max_tokens": 2000, "stream": True}
    async with Supervisor.launch(spec, tmp_path) as graph, aiohttp.ClientSession() as client:
        async with client.post(f"{graph.entries()[0]}/v1/completions", json=body) as response:
            await response.content.readany()
            assert await graph.leaks() != []
            response.close()
        for _ in range(40):
            if not (leaks := await graph.leaks()):
                break
            await asyncio.sleep(0.05)
        assert leaks == []


@in_loop
async def test_a_worker_that_dies_with_its_rank_is_healed(tmp_path: Path) -> None:
    """A worker whose rank was killed may end a moment later. Heal waits for its end, and starts it again."""
    run = await run_live(load_graph("reference"), plan_of("kill decode 1 rank"), tmp_path)
    assert run.verdict.kind == "kept", run.verdict
    incarnations = [
        e.incarnation for e in run.history.of(BecameReady) if e.replica == Replica("decode", 1)
    ]
    assert incarnations == [0, 1]

"""A toy serving graph for the tests: real processes and sockets, ready in a tenth of a second, with optional bugs.

    python toy.py front --port P --workers A,A [--forget] [--panic S]      OpenAI completions, streamed or not; retries on the next worker
    python toy.py work --port P [--children N] [--exit-after S] [--deaf]   makes the tokens
    python toy.py idle NAME                                                a child that listens on a port and does nothing

A is `HOST:PORT`, or a port on loopback. `--host`: the address to listen on.
`--forget`: a stream whose worker dies is cut. Without it, another worker finishes the stream.
`--panic S`: after the front finds a worker dead, every request gets a 503 for S seconds.
`--patience S`: a worker may take S seconds for an answer.
`--shun`: the front never sends work to its last worker, but lists it.
`--overlook`: after a worker was missing once, the list leaves the first worker out.
`--deaf`: the worker never becomes ready.
`--start-s S`: the process waits S seconds before it listens.
`--detach`: the children of a worker leave its session and its process tree.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

TOKEN_S = 0.004
LOOPBACK = "127.0.0.1"


def expected(prompt: str, max_tokens: int) -> str:
    """Return the right answer: letters that depend on the whole prompt."""
    digest = hashlib.shake_256(prompt.encode()).digest(max_tokens)
    return "".join(chr(ord("a") + byte % 26) for byte in digest)


class Server:
    """Answers one HTTP request for each connection."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.busy = 0
        self.turn = 0
        self.panic_until_s = 0.0
        self.was_alone = False

    async def serve(self) -> None:
        """Serve for ever, or for `--serve-for` seconds."""
        server = await asyncio.start_server(
            self.connected, self.arguments.host, self.arguments.port
        )
        async with asyncio.timeout(self.arguments.serve_for):
            await server.serve_forever()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request of a connection and answer it."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            lengths = [line for line in head if line.lower().startswith("content-length:")]
            body = await reader.readexactly(int(lengths[0].split(":")[1]) if lengths else 0)
            await self.answer(urlsplit(head[0].split()[1]), body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, url: SplitResult, body: bytes, writer: asyncio.StreamWriter) -> None:
        """Answer a request by its path."""
        if url.path == "/health":
            say(writer, "ready" if not self.arguments.deaf else "starting", kind="text/plain")
        elif url.path == "/metrics":
            say(writer, f"# TYPE toy_busy gauge\ntoy_busy {self.busy}\n", kind="text/plain")
        elif url.path == "/list":
            known = self.arguments.workers[int(self.arguments.overlook and self.was_alone) :]
            alive = [one for one in known if await is_open(one)]
            self.was_alone |= len(alive) < len(self.arguments.workers)
            say(writer, json.dumps({"workers": [{"port": one[1]} for one in alive]}))
        elif url.path == "/tokens":
            query = parse_qs(url.query)
            await self.make(query["prompt"][0], int(query["n"][0]), int(query["skip"][0]), writer)
        else:
            self.busy += 1
            try:
                await self.complete(json.loads(body), writer)
            finally:
                self.busy -= 1

    async def make(self, prompt: str, count: int, skip: int, writer: asyncio.StreamWriter) -> None:
        """Do the work of a worker: send one token after the other, `TOKEN_S` apart."""
        for letter in expected(prompt, count)[skip:]:
            await asyncio.sleep(TOKEN_S)
            writer.write(letter.encode())
            await writer.drain()

    async def complete(self, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:  # noqa: C901
        """Do the work of the front: ask one worker after the other until the answer is whole."""
        prompt, count = asked["prompt"], asked["max_tokens"]
        text = ""
        if time.monotonic() < self.panic_until_s:
            say(writer, '{"message": "panic"}', status="503 Service Unavailable")
            return
        if asked.get("stream"):
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            )
        for _ in range(2 * len(self.arguments.workers)):
            used = self.arguments.workers[: -1 if self.arguments.shun else None]
            worker = used[self.turn % len(used)]
            self.turn += 1
            async for letter in tokens(worker, prompt, count, len(text), self.arguments.patience):
                text += letter
                if asked.get("stream"):
                    writer.write(chunk(letter, None))
                    await writer.drain()
            if len(text) == count:
                break
            if self.arguments.panic:
                self.panic_until_s = time.monotonic() + self.arguments.panic
            if self.arguments.forget and text:
                return
        if asked.get("stream"):
            end = chunk("", "length") if len(text) == count else b'data: {"error": "no worker"}\n\n'
            writer.write(end + b"data: [DONE]\n\n")
        elif len(text) == count:
            say(writer, json.dumps(choice(text, "length", count)))
        else:
            say(writer, '{"message": "no worker"}', status="503 Service Unavailable")


async def tokens(
    worker: tuple[str, int], prompt: str, count: int, skip: int, within_s: float
) -> AsyncIterator[str]:
    """Yield the tokens of one worker until it is done or dies."""
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection(*worker)
            writer.write(
                f"GET /tokens?prompt={prompt}&n={count}&skip={skip} HTTP/1.1\r\n\r\n".encode()
            )
            while letter := await reader.read(1):
                yield letter.decode()
            writer.close()
    except (OSError, TimeoutError):
        return


async def is_open(worker: tuple[str, int]) -> bool:
    """Return whether a process listens at an address."""
    try:
        async with asyncio.timeout(0.5):
            _, writer = await asyncio.open_connection(*worker)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def choice(text: str, finish: str | None, count: int | None = None) -> dict[str, Any]:
    """Return an answer, or a chunk of one."""
    found: dict[str, Any] = {
        "id": "toy",
        "model": "toy",
        "choices": [{"index": 0, "text": text, "finish_reason": finish}],
    }
    return found if count is None else found | {"usage": {"completion_tokens": count}}


def chunk(text: str, finish: str | None) -> bytes:
    """Return a chunk as a server-sent event."""
    return b"data: " + json.dumps(choice(text, finish)).encode() + b"\n\n"


def say(
    writer: asyncio.StreamWriter, text: str, status: str = "200 OK", kind: str = "application/json"
) -> None:
    """Write a whole HTTP answer."""
    body = text.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)


def idle(name: str) -> None:
    """Listen on a port, under that process name, until killed."""
    ctypes.CDLL(None).prctl(15, name.encode())
    with socket.create_server(("127.0.0.1", 0)):
        print(f"{name} is up", flush=True)
        signal.pause()


def start_children(count: int, *, detach: bool) -> None:
    """Start the children of a worker. Detached ones are orphans in a new session."""
    for _ in range(count):
        argv = [sys.executable, __file__, "idle", "toy-engine"]
        if not detach:
            subprocess.Popen(argv)
        elif os.fork() == 0:
            subprocess.Popen(argv, start_new_session=True)
            os._exit(0)
        else:
            os.wait()


def addresses(text: str) -> list[tuple[str, int]]:
    """Read the addresses of the workers."""
    parts = (one.rpartition(":") for one in text.split(","))
    return [(host or LOOPBACK, int(port)) for host, _, port in parts]


def main() -> None:
    """Run one of the processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("front", "work", "idle"))
    parser.add_argument("name", nargs="?")
    parser.add_argument("--host", default=LOOPBACK)
    parser.add_argument("--port", type=int)
    parser.add_argument("--workers", type=addresses, default=[])
    parser.add_argument("--children", type=int, default=0)
    parser.add_argument("--exit-after", type=float)
    parser.add_argument("--serve-for", type=float)
    parser.add_argument("--start-s", type=float, default=0.0)
    parser.add_argument("--panic", type=float, default=0.0)
    parser.add_argument("--patience", type=float, default=1.0)
    for flag in ("--forget", "--shun", "--overlook", "--deaf", "--detach"):
        parser.add_argument(flag, action="store_true")
    arguments = parser.parse_args()
    if arguments.role == "idle":
        idle(arguments.name)
    start_children(arguments.children, detach=arguments.detach)
    time.sleep(arguments.start_s)
    if arguments.exit_after is not None:
        time.sleep(arguments.exit_after)
        sys.exit("toy: cannot go on: out of luck")
    asyncio.run(Server(arguments).serve())


if __name__ == "__main__":
    main()

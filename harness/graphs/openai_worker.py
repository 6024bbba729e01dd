"""An OpenAI server around an engine whose right answers are all known (see `engines`).

It stands in for vLLM or SGLang behind a router or a proxy. It is one process, and needs no registry. It answers completions and chat,
streamed or not, and the pages that routers ask for.

At most `--capacity` requests are answered at once, and the others wait for their turn. If a client leaves, the work for its request ends at
once. After SIGTERM the process does what vLLM does: it accepts no connections, finishes its requests (within `DRAIN_MAX_S`) and exits.

Run this file as a module.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from aiohttp import web

from graphquake.harness.graphs import engines
from graphquake.harness.reference.frontend import Frontend, Refused
from graphquake.harness.reference.node import DRAIN_MAX_S, main

# More requests than this in the process at once get HTTP 429. No load of a test comes near it, because requests wait without a limit.
IN_FLIGHT_MAX: Final = 100_000
CONTEXT_MAX: Final = 4096


class OpenAIWorker(Frontend):
    """Answers OpenAI requests with an engine of its own."""

    role = "worker"
    finish_max_s = DRAIN_MAX_S

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self._engine = engines.engine_of(arguments)
        self._capacity = asyncio.Semaphore(arguments.capacity)
        self._running = 0

    @classmethod
    def options(cls, parser: argparse.ArgumentParser) -> None:
        """See `Node.options`."""
        super().options(parser)
        engines.add_options(parser)
        parser.add_argument("--capacity", type=int, default=64, help="requests at once; more wait")
        parser.set_defaults(max_in_flight=IN_FLIGHT_MAX)

    async def open(self) -> None:
        """See `Node.open`."""
        await self._engine.start()

    async def close(self) -> None:
        """See `Node.close`."""
        await super().close()
        await self._engine.close()

    async def drain(self) -> None:
        """See `Node.drain`. The server closes its port and its idle connections first, as vLLM's server does."""
        await super().close()

    def health(self) -> str:
        """See `Node.health`. A process that has opened its port can serve."""
        return ""

    def metrics(self) -> dict[str, float]:
        """See `Node.metrics`: the requests that are answered now, and those that wait."""
        return {"worker_running": self._running, "worker_waiting": self.in_flight - self._running}

    def pages(self) -> list[web.RouteDef]:
        """See `Frontend.pages`."""
        names = ("server_info", "get_server_info", "model_info", "get_model_info")
        return [*super().pages(), *(web.get(f"/{name}", self.info) for name in names)]

    async def info(self, request: web.Request) -> web.Response:
        """Answer the pages by which SGLang describes its model and itself. Routers read the model's name there."""
        del request
        said: dict[str, Any] = {
            "model_path": self.model,
            "served_model_name": self.model,
            "tokenizer_path": "",
            "is_generation": True,
            "context_length": CONTEXT_MAX,
            "tp_size": 1,
            "dp_size": 1,
        }
        return web.json_response(said)

    async def generate(self, prompt: str, count: int) -> AsyncGenerator[str]:
        """See `Frontend.generate`. The request waits until the engine has room for it.

        Raises:
            Refused: if the prompt has a token that the model does not have.
        """
        async with self._capacity:
            self._running += 1
            try:
                try:
                    first, kv = await self._engine.prefill(list(prompt.encode("ascii")))
                except ValueError as error:
                    raise Refused(400, str(error)) from None
                async with aclosing(self._engine.decode(kv, first, count)) as tokens:
                    async for token in tokens:
                        yield chr(token)
            finally:
                self._running -= 1


if __name__ == "__main__":
    main(OpenAIWorker)

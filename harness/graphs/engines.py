"""The engines that a Dynamo worker may have. All right answers of both are known beforehand, as KV bytes and tokens.

- `exact`: only the exact model of `exact`, at a set speed. It takes almost no CPU time, so a test shows the behaviour of Dynamo.
- `reference`: the engine of the reference graph, with real attention over a real KV. Its ranks are separate processes, on the CPU or on
GPUs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from graphquake.harness.graphs import exact
from graphquake.harness.reference import engine as reference
from graphquake.harness.reference import model


class Engine(Protocol):
    """Makes tokens."""

    async def start(self) -> None:
        """Start the engine."""
        ...

    async def prefill(self, prompt: list[int]) -> tuple[int, bytes]:
        """The token that follows a prompt, and the prompt's KV.

        Raises:
            ValueError: if a token is none of the model's.
        """
        ...

    def decode(self, kv: bytes, first: int, count: int) -> AsyncGenerator[int]:
        """Make tokens that follow a KV. The first of them is `first`."""
        ...

    async def close(self) -> None:
        """End the engine."""
        ...


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of all engines."""
    parser.add_argument("--engine", choices=["exact", "reference"], default="exact")
    parser.add_argument("--prefill-ms", type=float, default=10.0, help="exact: per request")
    parser.add_argument("--token-ms", type=float, default=5.0, help="least time of a token")
    parser.add_argument("--tp", type=int, default=1, help="reference: ranks")
    parser.add_argument("--backend", choices=["numpy", "torch", "auto"], default="auto")


def engine_of(args: argparse.Namespace) -> Engine:
    """The engine that the options ask for."""
    return Reference(args) if args.engine == "reference" else Exact(args)


class Exact:
    """The exact model at a set speed."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._prefill_s: float = args.prefill_ms / 1000
        self._token_s: float = args.token_ms / 1000

    async def start(self) -> None:
        """See `Engine.start`. It has no effect here."""

    async def prefill(self, prompt: list[int]) -> tuple[int, bytes]:
        """See `Engine.prefill`."""
        await asyncio.sleep(self._prefill_s)
        cache = exact.prefill(prompt)
        return cache.next_token(), cache.kv

    async def decode(self, kv: bytes, first: int, count: int) -> AsyncGenerator[int]:
        """See `Engine.decode`. The KV alone decides, also about the first token."""
        del first
        tokens = exact.decode(exact.KvCache(kv))
        for _ in range(count):
            await asyncio.sleep(self._token_s)
            yield next(tokens)

    async def close(self) -> None:
        """See `Engine.close`. It has no effect here."""


class Reference:
    """The engine of the reference graph. If it loses a rank, the process ends, and waiting clients see their connections close."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._engine: reference.Engine
        self._watch: asyncio.Task[None]

    async def start(self) -> None:
        """See `Engine.start`."""
        args = self._args
        self._engine = await reference.Engine.start(
            tp=args.tp, backend=args.backend, step_s=args.token_ms / 1000
        )
        self._watch = asyncio.ensure_future(self._end_with_it())

    async def _end_with_it(self) -> None:
        await self._engine.lost.wait()
        os._exit(1)

    async def prefill(self, prompt: list[int]) -> tuple[int, bytes]:
        """See `Engine.prefill`."""
        if wrong := [token for token in prompt if not 0 <= token < model.VOCABULARY]:
            raise ValueError(f"token: found {wrong[0]}, expected 0 to {model.VOCABULARY - 1}")
        return await self._engine.prefill(prompt)

    async def decode(self, kv: bytes, first: int, count: int) -> AsyncGenerator[int]:
        """See `Engine.decode`."""
        yield first
        if count > 1:
            async with aclosing(self._engine.decode(kv, first, count - 1)) as tokens:
                async for token in tokens:
                    yield token

    async def close(self) -> None:
        """See `Engine.close`."""
        self._watch.cancel()
        await self._engine.close()

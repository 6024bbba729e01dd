"""The two engines that a Dynamo worker may have. The right tokens and KV bytes of both engines are known beforehand.

- `exact` is the model in `exact.py`, at a set speed. It takes almost no CPU time, so a test measures Dynamo and not the engine.
- `reference` is the engine of the reference graph, with real attention over a real KV. Its ranks are separate processes, on the CPU or on
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
    """The interface of both engines: an engine computes the KV of a prompt, and makes the tokens that follow a KV."""

    async def start(self) -> None:
        """Start the engine and wait until it is ready."""
        ...

    async def prefill(self, prompt: list[int]) -> tuple[int, bytes]:
        """Return the token that follows a prompt, and the KV of the prompt.

        Raises:
            ValueError: if the prompt has a token that the model does not have.
        """
        ...

    def decode(self, kv: bytes, first: int, count: int) -> AsyncGenerator[int]:
        """Yield `count` tokens that follow a prompt.

        Args:
            kv: the KV of the prompt.
            first: the token that `prefill` returned with this KV. It is the first token that is yielded.
            count: the number of tokens.
        """
        ...

    async def close(self) -> None:
        """End the engine."""
        ...


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command-line options of all engines to a parser."""
    parser.add_argument("--engine", choices=["exact", "reference"], default="exact")
    parser.add_argument("--prefill-ms", type=float, default=10.0, help="exact: per request")
    parser.add_argument("--token-ms", type=float, default=5.0, help="least time of a token")
    parser.add_argument("--tp", type=int, default=1, help="reference: ranks")
    parser.add_argument("--backend", choices=["numpy", "torch", "auto"], default="auto")


def engine_of(args: argparse.Namespace) -> Engine:
    """Return the engine that `--engine` names. It is not started yet."""
    return Reference(args) if args.engine == "reference" else Exact(args)


class Exact:
    """The exact model: a prefill takes `--prefill-ms`, and each token takes `--token-ms`."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._prefill_s: float = args.prefill_ms / 1000
        self._token_s: float = args.token_ms / 1000

    async def start(self) -> None:
        """See `Engine.start`. This engine has nothing to start."""

    async def prefill(self, prompt: list[int]) -> tuple[int, bytes]:
        """See `Engine.prefill`."""
        await asyncio.sleep(self._prefill_s)
        cache = exact.prefill(prompt)
        return cache.next_token(), cache.kv

    async def decode(self, kv: bytes, first: int, count: int) -> AsyncGenerator[int]:
        """See `Engine.decode`. `first` is ignored: this engine computes the first token from the KV, too."""
        del first
        tokens = exact.decode(exact.KvCache(kv))
        for _ in range(count):
            await asyncio.sleep(self._token_s)
            yield next(tokens)

    async def close(self) -> None:
        """See `Engine.close`. This engine has nothing to end."""


class Reference:
    """The engine of the reference graph. If a rank dies, the whole worker process exits, so waiting clients see their connections close."""

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

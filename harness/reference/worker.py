"""A worker: an engine on its ranks, in one of three modes.

- `prefill` computes the KV of a prompt, keeps it under an unguessable id, and hands it over once.
- `decode` fetches a KV and makes the tokens that follow. It never sees the prompt.
- `agg` does both.

A KV carries no checksum on purpose: a wrong transfer must show as a wrong answer. A worker whose engine lost a rank can't serve. It exits
at once, so that all waiting callers see their connections close.

Run this file as a module.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, ClassVar, Final

from graphquake.harness.reference.engine import LOST, STUCK, Engine, EngineError, EngineFull
from graphquake.harness.reference.node import Lost, Node, main
from graphquake.harness.reference.wire import Call, Gone, Message, ask

# A KV that is never fetched (the client left, or the decode worker died) must not stay for ever. A decode worker fetches within
# milliseconds.
KV_KEEP_S: Final = 2.0
KV_KEEP_MAX: Final = 1024
# The time limit of a KV fetch. A fetch takes longer only if the prefill worker is stopped, or starved on a busy host.
FETCH_MAX_S: Final = 0.5


class Worker(Node):
    """Prefill, decode, or both.

    Attributes:
        engine_kind: the class of its engine. Planted bugs replace it.
    """

    role = "worker"
    engine_kind: ClassVar[type[Engine]] = Engine

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self._arguments = arguments
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self.engine: Engine

    @classmethod
    def listed_as(cls, arguments: argparse.Namespace) -> str:
        """See `Node.listed_as`."""
        mode: str = arguments.mode
        return mode

    @classmethod
    def options(cls, parser: argparse.ArgumentParser) -> None:
        """See `Node.options`."""
        parser.add_argument("--mode", choices=["prefill", "decode", "agg"], required=True)
        parser.add_argument("--tp", type=int, default=1, help="ranks of the engine")
        parser.add_argument(
            "--backend",
            choices=["numpy", "torch", "auto"],
            default="numpy",
            help="auto: torch if CUDA_VISIBLE_DEVICES names a GPU",
        )
        parser.add_argument(
            "--devices", default="", help="of the ranks, with commas: cuda:0,cuda:1"
        )
        parser.add_argument("--seed", type=int, default=1, help="of the weights")
        parser.add_argument("--max-num-seqs", type=int, default=64, help="sequences in a batch")
        parser.add_argument("--step-ms", type=float, default=10.0, help="least time of a token")

    async def open(self) -> None:
        """See `Node.open`."""
        options = self._arguments
        try:
            self.engine = await self.engine_kind.start(
                tp=options.tp,
                backend=options.backend,
                devices=[one for one in options.devices.split(",") if one] or None,
                seed=options.seed,
                max_seqs=options.max_num_seqs,
                step_s=options.step_ms / 1000,
            )
        except EngineError as error:
            raise Lost(str(error)) from None

    async def work(self) -> None:
        """See `Node.work`. Ends the worker when its engine loses a rank."""
        await self.engine.lost.wait()
        raise Lost(LOST)

    async def close(self) -> None:
        """See `Node.close`."""
        await self.engine.close()

    def health(self) -> str:
        """See `Node.health`."""
        if self.engine.lost.is_set():
            return LOST
        return STUCK if self.engine.is_stuck else ""

    def is_drained(self) -> bool:
        """See `Node.is_drained`. A KV that may still be fetched counts as work that is left."""
        return self.in_flight == 0 and not self._held

    def metrics(self) -> dict[str, float]:
        """See `Node.metrics`."""
        return {
            "reference_in_flight": self.in_flight,
            "reference_running": self.engine.running,
            "reference_waiting": self.engine.waiting,
            "reference_kv_held": len(self._held),
            "reference_kv_usage": self.engine.running / self._arguments.max_num_seqs,
        }

    # ---------------------------------------------------------------------------------------------------------- calls

    async def on_call(self, call: Call, message: Message) -> None:
        """See `Node.on_call`."""
        if message["do"] == "fetch":
            await self.hand_over(call, message["kv"])
            return
        if self.draining:
            await call.send({"error": "draining"})
            return
        self.enter()
        try:
            match message["do"]:
                case "prefill":
                    await self.prefill(call, message)
                case "decode":
                    await self.decode(call, message)
                case "generate":
                    await self.generate(call, message)
        except EngineFull:
            await call.send({"error": "full"})
        except EngineError as error:
            raise Gone(str(error)) from None
        finally:
            self.leave()

    async def prefill(self, call: Call, message: Message) -> None:
        """Compute the KV of a prompt. The answer has the first token, and the address and the id with which the KV can be fetched."""
        token, kv = await self.engine.prefill(message["tokens"])
        await call.send({"token": token, "kv": self.hold(kv), "address": self.instance.address})

    async def decode(self, call: Call, message: Message) -> None:
        """Fetch the KV that the message names, and answer with the tokens that follow. A fetch that fails is answered with an error."""
        try:
            kv = await self.fetch(message)
        except Gone as gone:
            await call.send({"error": "kv", "why": str(gone)})
            return
        await self.stream(call, self.engine.decode(kv, message["token"], message["count"]))

    async def generate(self, call: Call, message: Message) -> None:
        """Do both the prefill and the decoding of a request in this worker, and answer with the tokens."""
        token, kv = await self.engine.prefill(message["tokens"])
        await call.send({"token": token})
        await self.stream(call, self.engine.decode(kv, token, message["count"] - 1))

    async def stream(self, call: Call, tokens: AsyncGenerator[int]) -> None:
        """Send each token to the caller as soon as it is made."""
        async with aclosing(tokens):
            async for token in tokens:
                await call.send({"token": token})

    # ----------------------------------------------------------------------------------------------- handing KV over

    def hold(self, kv: bytes) -> str:
        """Keep a KV until it is fetched, is older than `KV_KEEP_S`, or is the oldest of more than `KV_KEEP_MAX`.

        Returns:
            The id of the KV. A decode worker needs it to fetch the KV.
        """
        key = secrets.token_hex(8)
        self._held[key] = kv
        asyncio.get_running_loop().call_later(KV_KEEP_S, self._held.pop, key, None)
        if len(self._held) > KV_KEEP_MAX:
            self._held.popitem(last=False)
        return key

    async def hand_over(self, call: Call, key: str) -> None:
        """Send the KV with this id, and forget it. If there is no such KV, send an error."""
        kv = self._held.pop(key, None)
        if kv is None:
            await call.send({"error": "no such KV"})
        else:
            await call.send({"kv": key}, kv)

    async def fetch(self, message: Message) -> bytes:
        """Fetch a KV from the prefill worker that holds it.

        Args:
            message: the message of a `decode` call. `address` is that of the prefill worker, `kv` is the id of the KV.

        Raises:
            Gone: if the prefill worker can't be reached, is too slow, or no longer has the KV.
        """
        said: dict[str, Any]
        said, kv = await ask(message["address"], {"do": "fetch", "kv": message["kv"]}, FETCH_MAX_S)
        if "error" in said:
            raise Gone(said["error"])
        return kv


if __name__ == "__main__":
    main(Worker)

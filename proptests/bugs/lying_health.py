"""A worker whose engine is dead says that it is well, and lets requests wait.

Modelled on vllm 39863 and PR 21728: engine dead, health says 200, requests hang; sglang 6624.

In: prefill, decode
Breaks: ends, recovery, throughput, views_agree
Plan: kill prefill 0 rank
"""

from __future__ import annotations

import asyncio

from graphquake.harness.reference.node import main
from graphquake.harness.reference.wire import Call, Gone, Message
from graphquake.harness.reference.worker import Worker


class Bug(Worker):
    """All is well."""

    def health(self) -> str:
        """Always."""
        return ""

    async def work(self) -> None:
        """Whatever becomes of the engine."""
        await asyncio.Event().wait()

    async def on_call(self, call: Call, message: Message) -> None:
        """An engine that does not answer is one that is busy."""
        try:
            await super().on_call(call, message)
        except Gone:
            await asyncio.Event().wait()


if __name__ == "__main__":
    main(Bug)

"""A request whose processor dies waits for an answer that nobody will give.

Modelled on dynamo 13088: under churn 24 of 1,536 requests hang for minutes, without an error.

In: frontend
Breaks: ends
Plan: kill processor 0
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from graphquake.harness.reference.frontend import Frontend
from graphquake.harness.reference.node import main
from graphquake.harness.reference.wire import Gone, Message


class Bug(Frontend):
    """Waits on."""

    async def asked(self, message: Message) -> AsyncGenerator[str]:
        """A processor that is gone is taken for one that thinks."""
        try:
            async with aclosing(super().asked(message)) as texts:
                async for text in texts:
                    yield text
        except Gone:
            await asyncio.Event().wait()


if __name__ == "__main__":
    main(Bug)

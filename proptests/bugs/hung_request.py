"""A request whose processor died waits for an answer for ever.

Modelled on dynamo 13088: under churn, 24 of 1,536 requests hang for minutes without an error.

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
    """Goes on waiting for a processor that died."""

    async def asked(self, message: Message) -> AsyncGenerator[str]:
        """Treat a lost connection like a slow answer."""
        try:
            async with aclosing(super().asked(message)) as texts:
                async for text in texts:
                    yield text
        except Gone:
            await asyncio.Event().wait()


if __name__ == "__main__":
    main(Bug)

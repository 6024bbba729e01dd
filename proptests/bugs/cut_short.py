"""A stream whose processor dies ends as if it were complete: the connection ends properly, without an error and without its end mark.

Modelled on dynamo 13952: SIGTERM of the serving worker gives a truncated answer with status 200.

In: frontend
Breaks: honest
Graph: load.stream = 1.0
Plan: kill processor 0
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from aiohttp import web

from graphquake.harness.reference.frontend import Frontend, _Answer
from graphquake.harness.reference.node import main
from graphquake.harness.reference.wire import Gone, Message


class Cut(Exception):
    """The processor of a stream that has begun is gone."""


class Bug(Frontend):
    """Does not tell its clients that an answer is incomplete."""

    async def asked(self, message: Message) -> AsyncGenerator[str]:
        """Give up if the processor dies after the first token."""
        begun = False
        try:
            async with aclosing(super().asked(message)) as texts:
                async for text in texts:
                    begun = True
                    yield text
        except Gone:
            if begun:
                raise Cut from None
            raise

    async def stream(
        self, request: web.Request, texts: AsyncGenerator[str], answer: _Answer
    ) -> web.StreamResponse:
        """End the stream wherever it is."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with suppress(Cut):
            async for part in texts:
                await response.write(answer.event(part))
            await response.write(answer.event("", finish="length") + b"data: [DONE]\n\n")
        await response.write_eof()
        return response


if __name__ == "__main__":
    main(Bug)

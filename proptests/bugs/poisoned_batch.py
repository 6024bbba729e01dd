"""A request that is refused fails every request that is in flight at that moment, as if all of them were one batch.

Modelled on sglang 25811 and vllm-router PR 60: the refusals of a healthy worker count as its failures, so others get errors.

In: frontend
Breaks: refusals_are_cheap, error_window
Plan: burst 5 over 0.10 s, 100% malformed
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from graphquake.harness.reference.frontend import Frontend, Refused
from graphquake.harness.reference.node import main


class Bug(Frontend):
    """Fails what is in flight when it refuses a request."""

    poisoned = 0

    async def answer(self, request: web.Request, kind: str) -> web.StreamResponse:
        """Count the refusals."""
        response = await super().answer(request, kind)
        self.poisoned += response.status == web.HTTPBadRequest.status_code
        return response

    async def generate(self, prompt: str, count: int) -> AsyncGenerator[str]:
        """Give up at the first refusal of another request."""
        begun = self.poisoned
        async with aclosing(super().generate(prompt, count)) as texts:
            async for text in texts:
                if self.poisoned != begun:
                    raise Refused(500, "a request of the batch is not valid")
                yield text


if __name__ == "__main__":
    main(Bug)

"""Requests go to a dead worker until its lease ends, and each of them fails.

Modelled on dynamo PR 1424: round robin uses a dead worker until its lease ends; 32 of 100 requests fail.

In: processor
Breaks: error_window
Plan: kill decode 0; wait 1.20 s
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from graphquake.harness.reference.membership import Instance
from graphquake.harness.reference.node import main
from graphquake.harness.reference.processor import Failed, Processor, Unavailable


class Bug(Processor):
    """Does not remember failed instances and does not retry."""

    def avoid(self, instance: Instance) -> None:
        """Avoid no instance."""

    async def attempt(self, tokens: list[int], count: int) -> AsyncGenerator[int]:
        """Make one attempt and fail with it."""
        try:
            async with aclosing(super().attempt(tokens, count)) as made:
                async for token in made:
                    yield token
        except Failed as failed:
            raise Unavailable(str(failed)) from None


if __name__ == "__main__":
    main(Bug)

"""Wait for a graph's first right answer. A graph that is ready but gives no right answer counts as not started."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from graphquake.harness.clients.load import Load
from graphquake.harness.errors import GraphError
from graphquake.harness.history.request import Outcome, Request
from graphquake.harness.targets.target import Target

# The time limit for the first right answer, and the pause after a request without one.
FIRST_ANSWER_S: Final = 15.0
ASK_EVERY_S: Final = 0.05


async def first_answer(target: Target) -> None:
    """Wait until the graph has given one right answer.

    Raises:
        GraphError: if the graph gives no right answer within `FIRST_ANSWER_S` seconds.
    """
    begun_s = time.monotonic()
    sockets = target.socket_factory
    async with Load(target.spec, target.entries(), begun_s, [], socket_factory=sockets) as load:
        while (
            asked := await load.ask_once()
        ).outcome != Outcome.OK and load.now_s() <= FIRST_ANSWER_S:
            await asyncio.sleep(ASK_EVERY_S)
    # The error is raised outside the block. Inside, the task group would wrap it into an ExceptionGroup.
    if asked.outcome != Outcome.OK:
        raise GraphError(
            f"{target.spec.name}: every replica is ready, but no right answer within "
            f"{FIRST_ANSWER_S:g} s: {_why(asked)}"
        )


def _why(asked: Request) -> str:
    """The class of a failure and its message, without what both say: `HTTP 404: Not Found`, `wrong tokens: got 3 of 16 tokens`."""
    words = asked.detail.split()
    status = words[-1] if words and words[-1].isdecimal() else ""
    message = asked.message.removeprefix(status).lstrip(" :") if status else asked.message
    return ": ".join(filter(None, (asked.detail, message)))

"""The step `wait until a first token`: wait until the next first token of an answer arrives.

Only streamed answers have a first token that clients can see. The request may have been sent before the step began.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.kind import Begun, Step
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.harness.spec.steps.waits.in_flight import LOAD_EVENT_S
from graphquake.harness.spec.steps.waits.until import Until


@dataclass(frozen=True, slots=True)
class UntilFirstToken(Until):
    """Wait until the next first token of a streamed answer arrives at its client."""

    form: ClassVar[str] = "wait until a first token"
    pattern: ClassVar[str] = "wait until a first token"

    def __str__(self) -> str:
        return "wait until a first token"

    @classmethod
    def parse(cls, found: re.Match[str]) -> UntilFirstToken:
        """Return the step that a text form describes."""
        del found
        return cls()

    def possible(self, model: GraphModel) -> str | None:
        """Return the reason why no client can see a first token, or None if a client can. Clients that leave ask for a stream, too."""
        if model.spec.load.stream or model.burst_streams:
            return None
        return "no client asks for a streamed answer (load.stream is 0)"

    async def awaited(self, scene: Scene) -> Landed:
        """Wait until a client says that it got the first token of an answer."""
        return await scene.clients.until_first_token(LOAD_EVENT_S)


def first_token_timings(begun: Begun) -> list[Step]:
    """Return this wait if a first token can come now: clients ask for streams, and a path is up."""
    step = UntilFirstToken()
    return [step] if begun.model.serves() and step.possible(begun.model) is None else []

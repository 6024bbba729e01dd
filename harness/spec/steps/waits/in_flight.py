"""The step `wait until N in flight`: wait until the clients have at least N requests in flight.

A request is in flight from its sending to the end of its answer, as in the proofs of faults. The clients report that moment themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final

from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.kind import Begun, Step, number
from graphquake.harness.spec.steps.knob import Knob
from graphquake.harness.spec.steps.load.burst import REQUESTS_MAX, Burst
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.harness.spec.steps.waits.until import Until

# The time limit for events that the clients' requests bring about, in seconds. What a load can bring about, it brings about in a small part
# of this time. If it can't, a longer wait would only make the run longer.
LOAD_EVENT_S: Final = 5.0
# A drawn number of requests in flight: an open loop sends as many in this time, in seconds. It is at least `FEWEST`.
LATENCY_S: Final = 0.1
FEWEST: Final = 2


@dataclass(frozen=True, slots=True)
class UntilInFlight(Until):
    """Wait until the clients have enough requests in flight.

    Attributes:
        requests: the number of requests that must be in flight. More are enough, too.
    """

    requests: int

    form: ClassVar[str] = "wait until N in flight"
    pattern: ClassVar[str] = r"wait until (?P<n>\d{1,9}) in flight"

    def __str__(self) -> str:
        return f"wait until {self.requests} in flight"

    @classmethod
    def parse(cls, found: re.Match[str]) -> UntilInFlight:
        """Return the step that a text form describes."""
        return cls(int(number(found["n"], 1, REQUESTS_MAX, "a number of requests")))

    def possible(self, model: GraphModel) -> str | None:
        """Return the reason why so many requests can't be in flight, or None. Each client of a closed loop has one at a time."""
        most = model.spec.load.clients + model.burst_requests
        if model.spec.load.clients and self.requests > most:
            return f"{model.spec.load.clients} clients and the bursts before have at most {most} in flight"
        return None

    async def awaited(self, scene: Scene) -> Landed:
        """Wait until the clients say that they have so many requests in flight."""
        return await scene.clients.until_in_flight(self.requests, LOAD_EVENT_S)

    def knobs(self) -> tuple[Knob, ...]:
        """Return one number: the number of requests."""
        return (Knob("requests", 1.0, 1.0),)


def in_flight_timings(begun: Begun) -> list[Step]:
    """Return the waits of this kind that make sense before a fault now: as many requests as the load keeps in flight, or half of a burst.

    Without a path, requests fail at once, and few are in flight.
    """
    if not begun.model.serves():
        return []
    load = begun.model.spec.load
    steady = load.clients or max(FEWEST, round(load.rate_per_s * LATENCY_S))
    last = begun.steps[-1] if begun.steps else None
    half = [last.requests // 2] if isinstance(last, Burst) else []
    return [UntilInFlight(most) for most in dict.fromkeys([steady, *half]) if most >= FEWEST]

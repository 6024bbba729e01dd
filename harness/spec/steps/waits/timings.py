"""The waits for events that a search may draw right before a fault."""

from __future__ import annotations

from graphquake.harness.spec.steps.kind import Begun, Step
from graphquake.harness.spec.steps.waits.first_token import first_token_timings
from graphquake.harness.spec.steps.waits.in_flight import in_flight_timings
from graphquake.harness.spec.steps.waits.starts import starts_timings


def timings(begun: Begun) -> list[Step]:
    """Return each wait for an event that makes sense as the next step of a plan, if a fault follows it."""
    return [*in_flight_timings(begun), *first_token_timings(begun), *starts_timings(begun)]

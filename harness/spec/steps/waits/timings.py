"""The waits for events that a search may draw right before a fault."""

from __future__ import annotations

from graphquake.harness.spec.steps.kind import Draft, Step
from graphquake.harness.spec.steps.waits.first_token import first_token_timings
from graphquake.harness.spec.steps.waits.in_flight import in_flight_timings
from graphquake.harness.spec.steps.waits.starts import starts_timings


def timings(draft: Draft) -> list[Step]:
    """Return each wait for an event that makes sense as the next step of a plan, if a fault follows it."""
    return [*in_flight_timings(draft), *first_token_timings(draft), *starts_timings(draft)]

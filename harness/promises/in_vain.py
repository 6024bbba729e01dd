"""Waits for events that did not come: the plan that was carried out was then not the plan that was asked for."""

from __future__ import annotations

from collections.abc import Iterator

from graphquake.harness.history.events import StepDone
from graphquake.harness.history.history import History


def waits_in_vain(history: History) -> Iterator[str]:
    """Yield a reason why the run proves little, in words, for each wait for an event that did not come in its time."""
    for done in history.of(StepDone):
        if done.missed:
            yield f'"{done.step}" waited in vain: {done.proof}'

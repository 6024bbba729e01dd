"""The promise `blast_radius`: a fault ends only the processes that it aims at."""

from __future__ import annotations

from collections.abc import Iterator

from graphquake.harness.history.events import Died
from graphquake.harness.history.history import History
from graphquake.harness.promises.availability import Availability
from graphquake.harness.promises.verdict import Violation, violation_in


def blast_radius(history: History, up: Availability) -> Iterator[Violation]:
    """A replica dies only if a step aims at its main process, or kills a child that the graph file names in `dies_with`."""
    del up
    for death in history.of(Died):
        if death.aimed or _dies_with_a_child(history, death):
            continue
        yield violation_in(
            history,
            "blast_radius",
            f"{death.replica.role} died / {death.how}",
            death.at_s,
            f"{death.replica} (pid {death.pid}) died by itself with {death.how}",
        )


def _dies_with_a_child(history: History, death: Died) -> bool:
    for fault in history.faults():
        # A kill of a child has landed when the child was seen to be gone. The replica may die before that, so the start of the kill counts.
        if fault.victim != death.replica or fault.begun_s > death.at_s:
            continue
        if fault.step.effect(history.spec) == "dooms":
            return True
    return False

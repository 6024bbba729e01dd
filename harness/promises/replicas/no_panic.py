"""The promise `no_panic`: no replica logs a panic or a fatal signal.

If a fault ends a replica, its last lines prove nothing. So they do not count: every
line from the moment on at which a step begins to kill it, to terminate it, or to kill a child that it depends on. The same holds for a
fault of the user's own that aims at the replica, because its signal may be meant to abort it. Its next incarnation counts again.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphquake.harness.history.events import Panicked, Spawned
from graphquake.harness.history.history import History
from graphquake.harness.promises.availability import Availability
from graphquake.harness.promises.verdict import Violation, violation_in


def no_panic(history: History, up: Availability) -> Iterator[Violation]:
    """No line of a replica's log matches a pattern of the promise, except for the last lines of a replica that a fault ends."""
    del up
    for found in history.of(Panicked):
        if not _are_last_words(history, found):
            yield violation_in(
                history,
                "no_panic",
                f"{found.replica.role} logged {found.pattern}",
                found.at_s,
                f"{found.replica} logged: {found.line}",
            )


def _are_last_words(history: History, found: Panicked) -> bool:
    begun_s = max(
        (
            one.at_s
            for one in history.of(Spawned)
            if (one.replica, one.incarnation) == (found.replica, found.incarnation)
        ),
        default=-float("inf"),
    )
    return any(
        found.replica in fault.step.aims
        and begun_s <= fault.begun_s <= found.at_s
        and (fault.step.is_own or fault.step.effect(history.spec) in ("ends", "kills", "dooms"))
        for fault in history.faults()
    ) or any(
        replica == found.replica and begun_s <= told_s <= found.at_s
        for _, replica, told_s in history.endings()
    )

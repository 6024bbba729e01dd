"""What all checks of a target use: the error of a broken check, and the questions to the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from graphquake.harness.history.events import Died, Spawned
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import Landed, Target

# The time limits for a graph to be ready again after a fault, and for a target to notice what a fault has done.
READY_WITHIN_S: Final = 60.0
NOTICED_WITHIN_S: Final = 10.0
# The time by which `Landed.at_s` may lie before the call. Clocks of a cluster are not exact.
EARLY_S: Final = 0.05
POLL_S: Final = 0.02


class BrokenError(Exception):
    """The target does not keep the protocol. The text says how."""


def must(holds: object, said: str) -> None:
    """Raise a BrokenError with this text, if something does not hold."""
    if not holds:
        raise BrokenError(said)


async def soon(holds: Callable[[], bool], said: str, within_s: float = NOTICED_WITHIN_S) -> None:
    """Wait until something holds. Raise a BrokenError with this text if it does not in this time."""
    until_s = time.monotonic() + within_s
    while not holds():
        must(time.monotonic() < until_s, f"{said} within {within_s:g} s")
        await asyncio.sleep(POLL_S)


def deaths_of(target: Target, replica: Replica) -> list[Died]:
    """Return the deaths of a replica that the log has."""
    return [e for e in target.log if isinstance(e, Died) and e.replica == replica]


def life_of(target: Target, replica: Replica) -> int:
    """Return the number of the latest incarnation."""
    lives = [e for e in target.log if isinstance(e, Spawned) and e.replica == replica]
    must(lives, f"the log has no Spawned of {replica}")
    return lives[-1].incarnation


def check_landed(landed: Landed, begun_s: float) -> None:
    """Check the result of a fault that should have landed."""
    must(landed.ok, f"did not land: {landed.proof}")
    must(landed.proof, "landed without a proof")
    late = landed.at_s <= time.monotonic()
    must(late and landed.at_s >= begun_s - EARLY_S, "at_s does not lie within the call")

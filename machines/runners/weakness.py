"""The reason why a valid run proved little, in a few words. The summary counts the runs of each reason."""

from __future__ import annotations

from typing import Final

from graphquake.harness.history.history import History
from graphquake.harness.promises.idle import idle_reason
from graphquake.harness.promises.in_vain import waits_in_vain
from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.run.noise.contention import BUSY
from graphquake.harness.targets.target import SLOW_WAY

AT_IDLE: Final = "at idle replicas"
IN_VAIN: Final = "waited in vain for an event"
OUTAGE: Final = "mostly outage"
ON_BUSY: Final = "on a busy machine"
ON_SLOW: Final = "on a slow way to the graph"


def weakness(verdict: Verdict, history: History) -> str:
    """The first reason that applies to a weak run, or an empty text if the run is not weak."""
    if not verdict.weak:
        return ""
    if idle_reason(history) is not None:
        return AT_IDLE
    if any(waits_in_vain(history)):
        return IN_VAIN
    for word, reason in ((BUSY, ON_BUSY), (SLOW_WAY, ON_SLOW)):
        if all(why.startswith(word) for why in verdict.weak_because):
            return reason
    return OUTAGE

"""Which steps of a failing run are likely to be behind what it showed: from its history, before anything is run again.

A weight for each step, on its odds of being needed (see `suspects`): 1 says nothing. A wrong one costs runs and loses nothing, and how
much it may weigh is bounded there. Asked is what a reader of the history would look at first:

- Which was the last fault before it?
- Whom did the step hit? A request passes the entry and the roles that serve it; who is beside that path is behind few failures.
- Is it about load? What is shed, or still counted at the end, is the doing of a burst more often than other failures are.

What the weights are worth was counted over the first failures of searches for planted bugs, see
`docs/explanation/measurements.md`. Nothing besides was told by how long ago a step was, by whether the request that shows it was under way
at the step, and by whether the step's victim, who should have served it, was still down. Who did serve it is not known to a client.
"""

from __future__ import annotations

from typing import Final

from graphquake.harness.history.history import History
from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Violation
from graphquake.harness.spec.plan import Aimed, Burst, Step

LAST_FAULT: Final = 2.0
BESIDE_THE_PATH: Final = 0.25
BURST_OF_LOAD: Final = 4.0
GAUGE_LEFT: Final = Signature("no_leak", "gauge")


def blame(history: History, violation: Violation) -> tuple[float, ...]:
    """A weight for each step of the plan of a run that broke a promise.

    Args:
        history: of that run.
        violation: what it showed.
    """
    before = [step.number for step in history.faults() if step.at_s <= violation.at_s]
    last = max(before, default=-1)
    weights = []
    for number, step in enumerate(history.plan.steps):
        weight = _of_role(history, step) * _of_load(step, violation)
        weights.append(weight * LAST_FAULT if number == last else weight)
    return tuple(weights)


def _of_role(history: History, step: Step) -> float:
    path = history.spec.serves.roles | {history.spec.entry_role.name}
    return BESIDE_THE_PATH if isinstance(step, Aimed) and step.role not in path else 1.0


def _of_load(step: Step, violation: Violation) -> float:
    is_load = violation.promise == "throughput" or violation.signature == GAUGE_LEFT
    return BURST_OF_LOAD if is_load and isinstance(step, Burst) else 1.0

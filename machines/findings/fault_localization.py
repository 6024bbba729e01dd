"""Fault localization: guesses from the history of a failing run which steps caused the failure, before anything is run again.

Each step gets a weight: a factor on the odds that the failure needs it (see `probdd`). 1 is neutral. A wrong weight costs runs, but the
minimal plan stays the same. `probdd` bounds the effect of a weight. The weights follow the facts that a reader of the history would look
at first:

- The last fault before the violation weighs more.
- A step that aims only at roles outside the path of a request weighs less.
- A burst weighs more if the violation is about load: shed requests, or a gauge that does not return to 0.

The weights were measured over the first failures of searches for planted bugs, see `docs/explanation/measurements.md`. Three other features
did not add information. They are the time since the step, a failing request in flight at the step, and a victim of the step that was still
down. A client does not know which replica served its request, so the serving replica is not a feature.
"""

from __future__ import annotations

from typing import Final

from graphquake.harness.history.history import History
from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Violation
from graphquake.harness.spec.plan import Step

LAST_FAULT: Final = 2.0
BESIDE_THE_PATH: Final = 0.25
BURST_OF_LOAD: Final = 4.0
GAUGE_LEFT: Final = Signature("no_leak", "gauge")


def blame(history: History, violation: Violation) -> tuple[float, ...]:
    """The weight of each step of a plan that broke a promise.

    Args:
        history: the history of the run.
        violation: the violation that the run showed.

    Returns:
        One weight for each step, in the order of the plan. 1 is neutral.
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
    roles = {replica.role for replica in step.aims}
    return BESIDE_THE_PATH if roles and roles.isdisjoint(path) else 1.0


def _of_load(step: Step, violation: Violation) -> float:
    is_load = violation.promise == "throughput" or violation.signature == GAUGE_LEFT
    return BURST_OF_LOAD if is_load and step.adds_load else 1.0

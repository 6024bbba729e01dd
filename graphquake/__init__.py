"""Graphquake: a stateful property tester for inference-serving graphs.

The names in `__all__` are the public API. Everything else may change in any release.

Each public name loads on first use. Replicas of the reference graph import this package, too, and must start without importing Hypothesis.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from graphquake.harness.history.history import History as History
    from graphquake.harness.history.request import Outcome as Outcome
    from graphquake.harness.history.request import Request as Request
    from graphquake.harness.promises.availability import Availability as Availability
    from graphquake.harness.promises.availability import Stretch as Stretch
    from graphquake.harness.promises.verdict import Violation as Violation
    from graphquake.harness.promises.verdict import violation_in as violation_in
    from graphquake.machines import chaos as chaos
    from graphquake.machines.plans.machine import PlanMachine as PlanMachine

# A test class of your own needs `chaos` and `PlanMachine`. A promise of your own needs the other names.
__all__ = [
    "Availability",
    "History",
    "Outcome",
    "PlanMachine",
    "Request",
    "Stretch",
    "Violation",
    "chaos",
    "violation_in",
]

_HOME: Final = {
    "Availability": "graphquake.harness.promises.availability",
    "History": "graphquake.harness.history.history",
    "Outcome": "graphquake.harness.history.request",
    "PlanMachine": "graphquake.machines.plans.machine",
    "Request": "graphquake.harness.history.request",
    "Stretch": "graphquake.harness.promises.availability",
    "Violation": "graphquake.harness.promises.verdict",
    "chaos": "graphquake.machines",
    "violation_in": "graphquake.harness.promises.verdict",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        try:
            return version("graphquake")
        except PackageNotFoundError:
            return "0+checkout"
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)

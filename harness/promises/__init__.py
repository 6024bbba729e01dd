"""The promises of a graph as pure functions over histories. The package exports the names that a user's own promise needs."""

from __future__ import annotations

from graphquake.harness.history.history import History
from graphquake.harness.history.request import Outcome, Request
from graphquake.harness.promises.availability import Availability, Stretch
from graphquake.harness.promises.judgement import judge
from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Verdict, Violation, violation_in

__all__ = [
    "Availability",
    "History",
    "Outcome",
    "Request",
    "Signature",
    "Stretch",
    "Verdict",
    "Violation",
    "judge",
    "violation_in",
]

"""The promises: pure functions over histories, and the names that a promise of your own needs."""

from __future__ import annotations

from graphquake.harness.promises.availability import Availability, Stretch
from graphquake.harness.promises.builtin import judge
from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Verdict, Violation, violation_in

__all__ = ["Availability", "Signature", "Stretch", "Verdict", "Violation", "judge", "violation_in"]

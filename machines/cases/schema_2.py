"""Reads cases of schema 2, in which `in_flight = "must survive"` had the meaning that `like others` has now.

The other values of a case of schema 2 are those of schema 3. Two spare failures could not be set then. They are added, so that a graph file
that sets another number does not change an old case.
"""

from __future__ import annotations

from typing import Final

from graphquake.harness.spec.bounds import as_meant_then
from graphquake.harness.spec.table import Table

SCHEMA: Final = 2
_SPARE_FAILURES: Final = 2


def upgraded(table: Table) -> dict[str, object]:
    """The JSON of a case of schema 3 from that of schema 2."""
    bounds = dict(table.table("bounds").values)
    if "in_flight" in bounds:
        bounds["in_flight"] = as_meant_then(bounds["in_flight"])
    if "window_s" in bounds:
        bounds.setdefault("spare_failures", _SPARE_FAILURES)
    return dict(table.values) | {"schema": 3, "bounds": bounds}

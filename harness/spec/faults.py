"""The key `faults` of a graph file and of its roles: the kinds of fault that a search may draw, and at which replicas.

The list of a role decides for that role. A role without a list takes the list of the graph. Plans that a user writes, cases and scenarios
may use every fault: the lists limit what is drawn, not what is possible.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphquake.harness.spec.table import Table, did_you_mean


def read_faults(table: Table, known: Sequence[str]) -> tuple[str, ...] | None:
    """Return the value of the key `faults` of a table, or None if the table has no such key.

    Args:
        table: the whole file, or the table of a role.
        known: the verbs of all kinds of fault.

    Raises:
        InputError: if the list names something that is not a kind of fault.
    """
    if "faults" not in table:
        return None
    found = table.texts("faults")
    for verb in found:
        if verb not in known:
            raise table.error(
                "faults", f'names "{verb}", which is not a kind of fault{did_you_mean(verb, known)}'
            )
    return found

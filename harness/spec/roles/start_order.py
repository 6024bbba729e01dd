"""The order in which the roles of a graph start: the key `needs` of a role."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping

from graphquake.harness.spec.table import Table, did_you_mean


def read_needs(table: Table, roles: Mapping[str, Table]) -> tuple[str, ...]:
    """Read the names of the roles that must be ready before a role starts.

    Raises:
        InputError: if a name is not another role.
    """
    needs = table.texts("needs")
    for name in needs:
        if name not in roles:
            raise table.error(
                "needs", f'names "{name}", which is not a role{did_you_mean(name, roles)}'
            )
    return needs


def check_order(top: Table, needs: Mapping[str, Iterable[str]]) -> None:
    """Check that the roles of a graph can start one after the other.

    Args:
        top: the table of the whole file.
        needs: the name of each role -> the names of the roles that it needs.

    Raises:
        InputError: if roles need each other in a circle. The error names the circle.
    """
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        # The sorter lists a circle from the needed role to the one that needs it.
        circle = " needs ".join(reversed(error.args[1]))
        raise top.error("roles", f"can never start: {circle}") from None

"""The key `faults` of a graph file and of its roles: the kinds of fault that a search may draw, and at which replicas.

The list of a role decides for that role. A role without a list takes the list of the graph. Plans that a user writes, cases and scenarios
may use every fault: the lists limit only the drawing of plans.

A list names kinds by their titles. A verb that several kinds share stands for all of them, and `all` for every kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from graphquake.harness.spec.steps.network.cut import Cut, Partition
from graphquake.harness.spec.steps.network.fault import LinkFault
from graphquake.harness.spec.steps.table import ALL, KINDS, default_faults, faults_called, verbs
from graphquake.harness.spec.table import Table, did_you_mean

# The faults of the network.
LINK_FAULTS: Final = tuple(kind.verb for kind in KINDS if issubclass(kind, LinkFault))
# Those that a NetworkPolicy can do.
CUTS: Final = (Cut.verb, Partition.verb)


def read_faults(table: Table, own: Sequence[str]) -> tuple[str, ...] | None:
    """Return the value of the key `faults` of a table, or None if the table has no such key.

    Args:
        table: the whole file, or the table of a role.
        own: the names of the user's own steps that are faults.

    Raises:
        InputError: if the list names something that is not a kind of fault.
    """
    if "faults" not in table:
        return None
    found: list[str] = []
    for name in table.texts("faults"):
        meant = [name] if name in own else list(faults_called(name))
        if not meant:
            near = did_you_mean(name, (ALL, *faults_called(ALL), *verbs(), *own))
            raise table.error("faults", f'names "{name}", which is not a kind of fault{near}')
        found += [*meant, *own] if name == ALL else meant
    return tuple(dict.fromkeys(found))


def read_graph_faults(top: Table, own: Sequence[str], *, some_at_roles: bool) -> tuple[str, ...]:
    """Return the list `faults` of the whole graph. Without such a list, return the kinds that are drawn by default.

    Args:
        top: the whole file.
        own: the names of the user's own steps that are faults.
        some_at_roles: true if the list of some role names a kind of fault. The list of the graph may then be empty.

    Raises:
        InputError: if the list names something that is not a kind of fault, or if no list names one.
    """
    default = (*default_faults(), *_of_links(top), *own)
    faults = read_faults(top, own)
    if faults == () and not some_at_roles:
        some = f"expected some of {', '.join(default)}"
        raise top.error("faults", f"is empty, and so is the list of every role; {some}")
    return default if faults is None else faults


def _of_links(top: Table) -> tuple[str, ...]:
    """Return the faults of the network that a graph has by default: all of them with network namespaces, and cuts with policies."""
    return {"namespaces": LINK_FAULTS, "policies": CUTS}.get(str(top.values.get("network")), ())

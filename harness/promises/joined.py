"""Tell whether a path is up although some replicas can't talk to each other.

The graph file says which roles a request needs, not which of them talk to each other. So a path is a set of replicas, one of each needed
role, of which no two are separated. A replica that is separated from a role beside the path, e.g. from a registry, is not on a path: the
others may take it for dead. Each entry that is up needs a path, because clients choose an entry, not a path.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from collections.abc import Set as AbstractSet
from typing import Final, TypeAlias

from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.replica import Replica

Pairs: TypeAlias = Collection[frozenset[Replica]]
# A graph with more choices among separated replicas counts as one without a path.
CHOICES_MAX: Final = 4096


def is_joined(spec: GraphSpec, up: AbstractSet[Replica], pairs: Pairs) -> bool:
    """Return whether each entry that is up has a path.

    Args:
        spec: the graph.
        up: the replicas that are up.
        pairs: the pairs of replicas that can't talk to each other.
    """
    entry = spec.entry_role.name
    on_path = spec.serves.roles | {entry}
    apart: dict[Replica, set[Replica]] = {}
    for pair in pairs:
        for one in pair:
            apart.setdefault(one, set()).update(pair - {one})
    usable = [
        one
        for one in up
        if one.role in on_path and all(other.role in on_path for other in apart.get(one, ()))
    ]
    entries = [one for one in up if one.role == entry]
    return bool(entries) and all(
        one in usable and _has_path(spec, one, usable, apart) for one in entries
    )


def _has_path(
    spec: GraphSpec, entry: Replica, usable: list[Replica], apart: dict[Replica, set[Replica]]
) -> bool:
    free, choices = {entry.role}, dict[str, list[Replica]]()
    for role in spec.serves.roles - {entry.role}:
        there = [one for one in usable if one.role == role and one not in apart.get(entry, ())]
        if any(one not in apart for one in there):
            free.add(role)
        elif there:
            choices[role] = there
    if math.prod(map(len, choices.values())) > CHOICES_MAX:
        return False
    return any(
        spec.serves.holds(free | {one.role for one in chosen})
        and not any(other in apart[one] for one, other in itertools.combinations(chosen, 2))
        for count in range(len(choices) + 1)
        for roles in itertools.combinations(choices.values(), count)
        for chosen in itertools.product(*roles)
    )

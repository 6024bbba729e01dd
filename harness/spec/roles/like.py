"""The key `like` of a role: the table of another role from which missing keys come."""

from __future__ import annotations

from collections.abc import Mapping

from graphquake.harness.spec.table import Table, did_you_mean


def with_like(tables: Mapping[str, Table]) -> dict[str, Table]:
    """Return the table of each role. If it has the key `like`, its missing keys come from the table of the role that `like` names."""
    found = {}
    for name, table in tables.items():
        if "like" not in table:
            found[name] = table
            continue
        other = table.text("like")
        if other not in tables or other == name:
            rest = [role for role in tables if role != name]
            raise table.error(
                "like", f'names "{other}", which is not another role{did_you_mean(other, rest)}'
            )
        if "like" in tables[other]:
            raise table.error(
                "like", f'names "{other}", which itself has "like": only one level is read'
            )
        merged = {**tables[other].values, **table.values}
        del merged["like"]
        found[name] = Table(table.source, merged, table.path)
    return found

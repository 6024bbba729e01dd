"""The tables `ready` and `listed` of a role: its readiness probe, and the graph's list of its replicas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from graphquake.harness.spec.table import Table, did_you_mean
from graphquake.harness.spec.templates.words import check_words


@dataclass(frozen=True, slots=True)
class Ready:
    """A readiness probe of a role. A replica is ready if a GET returns status 200 and a text in which `body` is found.

    Attributes:
        get: template of the URL.
        within_s: the longest time that a replica may take to become ready, in seconds.
        body: a regular expression. The empty one is found in every text.
    """

    get: str
    within_s: float
    body: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """A list of live replicas that the graph keeps and shows at a URL.

    Attributes:
        get: template of the URL.
        item: a regular expression that is found once in the list for each listed replica.
        roles: the names of the roles whose replicas the list contains.
    """

    get: str
    item: str
    roles: tuple[str, ...]


def _check_regex(table: Table, key: str, text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise table.error(key, f"is not a valid regular expression: {error}") from None
    return text


def read_ready(table: Table, roles: Mapping[str, Table]) -> Ready:
    """Read a `ready` table.

    Args:
        table: the table.
        roles: the tables of the graph's roles, by name. Templates may name their ports.

    Raises:
        InputError: if a value is wrong.
    """
    get = check_words(table, "get", table.text("get"), roles)
    within_s = table.number("within_s", 30.0, at_least=0.1, at_most=3600)
    body = table.text("body") if "body" in table else ""
    table.done()
    return Ready(get, within_s, _check_regex(table, "body", body))


def read_listed(table: Table, roles: Mapping[str, Table]) -> Listed:
    """Read a `listed` table. The arguments and errors are those of `read_ready`."""
    get = check_words(table, "get", table.text("get"), roles)
    item = _check_regex(table, "item", table.text("item"))
    names = table.texts("roles")
    if not names:
        raise table.error("roles", "is missing: give the roles whose replicas are listed")
    for name in names:
        if name not in roles:
            raise table.error(
                "roles", f'names "{name}", which is not a role{did_you_mean(name, roles)}'
            )
    table.done()
    return Listed(get, item, names)

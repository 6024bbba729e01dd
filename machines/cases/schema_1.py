"""Reads cases of schema 1, in which counts were English sentences.

`upgraded` turns the JSON of a case of schema 1 into that of schema 2. A sentence in a form that Graphquake never wrote is an `InputError`:
its counts are not guessed. Bounds that schema 1 did not keep stay absent, so a replay takes them from the graph file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from graphquake.harness.history.request import ERROR_EVENT
from graphquake.harness.promises.signature import Signature
from graphquake.harness.spec.table import Table, shown

SCHEMA: Final = 1
# A class of failure in old signatures. New signatures do not use it.
TOO_MANY: Final = "too many"
# The status of an error event if an old case does not tell it. In run folders of that time, every error event has this status.
EVENT_STATUS: Final = 503

_FIRST_CLASS: Final = re.compile(r"\d+ × ([^,;]+)")
_OF_A_STEP: Final = re.compile(r" \(step \d+\)$")
_KEPT: Final = re.compile(r"kept in (\d+) of (\d+) runs")
_BROKEN: Final = re.compile(r"broken in (?:only )?(\d+) of (\d+) runs")
_NUMBER: Final = re.compile(r"(\w+) (\S+) breaks it, (\S+) was kept in (\d+) of (\d+) runs")
_DIFFERENCE: Final = re.compile(r"(.+) ([≥≤]) (\S+): (\d+) of \d+ broken, 0 of (\d+) kept")


def upgraded(table: Table) -> dict[str, object]:
    """The JSON of a case of schema 2 from that of schema 1.

    Raises:
        InputError: if a sentence holds counts in a form that was never written.
    """
    signature, *also = (str(one) for one in _signatures(table))
    new = dict(table.values) | {"schema": 2, "signature": signature, "also": also}
    needed, numbers = table.name_texts("needed"), table.name_texts("numbers")
    new["needed"] = [
        {"step": _OF_A_STEP.sub("", step)} | _counts(table, f"needed.{step}", text)
        for step, text in needed.items()
    ]
    new["numbers"] = [
        _threshold(table, step, text)
        for step, texts in numbers.items()
        for text in texts.split("; ")
    ]
    new["differs"] = [_difference(table, text) for text in table.texts("differs")]
    controls = table.text("controls") if "controls" in table else ""
    if "without the faults" in controls:
        new["control"] = _counts(table, "controls", controls)
    if "load" in table:
        # In schema 1, the load of an open loop has no key `clients`.
        new["load"] = {"clients": 0} | dict(table.table("load").values)
    new["cost"] = _cost(table.table("shrunk_from"))
    for key in ("controls", "shrunk_from"):
        new.pop(key, None)
    return new


def _signatures(table: Table) -> Iterator[Signature]:
    """The case's own signature, then the others that its plan shows, in the words of schema 2.

    - `error event` had no status. It gets the status that the case's other signatures name. If they name none, or several, it gets
      `EVENT_STATUS`.
    - `too many` did not name a class of failure. It is replaced by the most frequent class, which comes first in `seen`.
    """
    found = [Signature.parse(text) for text in (table.text("signature"), *table.texts("also"))]
    statuses = {one.what.removeprefix("HTTP ") for one in found if one.what.startswith("HTTP 5")}
    status = statuses.pop() if len(statuses) == 1 else str(EVENT_STATUS)
    first = _FIRST_CLASS.search(table.text("seen"))
    for one in found:
        if one.what == TOO_MANY and first is not None:
            one = replace(one, what=first[1])  # noqa: PLW2901 - the mapped word may be the other one
        yield replace(one, what=f"{ERROR_EVENT} {status}") if one.what == ERROR_EVENT else one


def _counts(table: Table, key: str, text: str) -> dict[str, object]:
    if text == "untested":
        return {"broke": 0, "kept": 0}
    if found := _KEPT.match(text):
        return {"broke": int(found[2]) - int(found[1]), "kept": int(found[1])}
    if found := _BROKEN.match(text):
        return {"broke": int(found[1]), "kept": int(found[2]) - int(found[1])}
    raise table.error(key, f'found {shown(text)}, expected e.g. "kept in 3 of 3 runs"')


def _threshold(table: Table, step: str, text: str) -> dict[str, object]:
    found = _NUMBER.fullmatch(text)
    if not found:
        form = '"for_s 0.5 breaks it, 0.2 was kept in 3 of 3 runs"'
        raise table.error(f"numbers.{step}", f"found {shown(text)}, expected e.g. {form}")
    kept, runs = int(found[4]), int(found[5])
    named: dict[str, object] = {} if step == "stay" else {"step": step}
    numbers: dict[str, object] = {"value": float(found[2]), "below": float(found[3])}
    return named | {"name": found[1]} | numbers | {"broke": runs - kept, "kept": kept}


def _difference(table: Table, text: str) -> dict[str, object]:
    found = _DIFFERENCE.fullmatch(text)
    if not found:
        form = '"FACT ≥ 12: 4 of 4 broken, 0 of 7 kept"'
        raise table.error("differs", f"found {shown(text)}, expected e.g. {form}")
    return {
        "fact": found[1],
        "sign": found[2],
        "edge": float(found[3]),
        "broke": int(found[4]),
        "kept": int(found[5]),
    }


def _cost(table: Table) -> Mapping[str, object]:
    """The cost, with the types of schema 2. Schema 1 wrote whole numbers as `16.0`, and `plainer` as 1."""
    numbers = {key: table.number(key) for key in table}
    whole = {key: int(value) if value.is_integer() else value for key, value in numbers.items()}
    return whole | ({"plainer": True} if numbers.get("plainer") else {})

"""The bounds and the load under which a case was seen, and a way to put a graph under the same bounds and load.

A case keeps every field of `Promises` and `LoadSpec`, and the lease, which is part of the bound of `views_agree`. Names and types of the
kept values follow from the dataclasses, so a case keeps a new bound as soon as it exists. Two fields are left out: the source of each
bound, and the name of the model. Cases of schema 1 kept fewer bounds. For their replays, the graph file gives the missing ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final, Literal, TypeAlias, get_args, get_origin, get_type_hints

from graphquake.harness.spec.bounds import BUILT_IN_PROMISES, Promises
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.load import LoadSpec
from graphquake.harness.spec.table import Table

Value: TypeAlias = float | int | str | tuple[str, ...] | tuple[int, ...]

LEASE: Final = "lease_s"
# `from_file` only tells the reader of a finding which bounds the graph file sets. The model's name is part of the graph's commands.
_NOT_KEPT: Final = ("from_file", "model")
# A promise that a graph file switches off, and one that it makes.
_ON: Final = ("off", "on")


def _kinds(owner: type) -> dict[str, object]:
    """The fields of a dataclass that a case keeps: name -> type."""
    hints = get_type_hints(owner)
    return {one.name: hints[one.name] for one in fields(owner) if one.name not in _NOT_KEPT}


# The promises that existed when the first cases were saved. Such a case does not tell that it lacks a later one.
_AT_FIRST: Final = (
    "ends", "answers", "error_window", "recovery", "throughput", "blast_radius", "views_agree", "no_leak",
)  # fmt: skip


# The place of each bound in a graph file: field -> promise and key.
_KEYS: Final[Mapping[str, tuple[str, str]]] = {
    "stall_s": ("ends", "stall_s"),
    "oracle": ("answers", "oracle"),
    "drain_s": ("drain", "within_s"),
    "window_s": ("error_window", "window_s"),
    "in_flight": ("error_window", "in_flight"),
    "spare_failures": ("error_window", "spare_failures"),
    "first_ok_s": ("recovery", "first_ok_s"),
    "all_ok_s": ("recovery", "all_ok_s"),
    "success": ("throughput", "success"),
    "goodput": ("throughput", "goodput"),
    "slower": ("throughput", "slower"),
    "well_s": ("collapse", "within_s"),
    "well_slower": ("collapse", "slower"),
    "refusals_slower": ("refusals_are_cheap", "slower"),
    "panics": ("no_panic", "patterns"),
    "not_panics": ("no_panic", "ignore"),
    "growth_mib": ("no_growth", "memory_mib"),
    "agree_s": ("views_agree", "within_s"),
    "grace_s": ("no_leak", "grace_s"),
    "gauges": ("no_leak", "gauges"),
}

BOUNDS: Final[Mapping[str, object]] = _kinds(Promises) | {LEASE: float}
LOAD: Final[Mapping[str, object]] = _kinds(LoadSpec)


def bounds_of(spec: GraphSpec) -> dict[str, Value]:
    """Every bound by which the graph's promises are judged: field -> value."""
    kept = {name: getattr(spec.promises, name) for name in BOUNDS if name != LEASE}
    return kept | {LEASE: spec.lease_s}


def load_of(spec: GraphSpec) -> dict[str, Value]:
    """The load under which the graph runs: field -> value."""
    return {name: getattr(spec.load, name) for name in LOAD}


def under(spec: GraphSpec, bounds: Mapping[str, Value], load: Mapping[str, Value]) -> GraphSpec:
    """The graph under these bounds and this load. All other values stay as in the graph file.

    The graph's `document` gets the same values. A run folder keeps the document, so `graphquake check` judges a replay by these bounds.
    """
    # `read_bounds` and `read_load` have checked names and types against the fields.
    of_promises: dict[str, Any] = {name: bounds[name] for name in bounds if name != LEASE}
    of_load: dict[str, Any] = dict(load)
    lease_s: Any = bounds.get(LEASE, spec.lease_s)
    promises = replace(spec.promises, **of_promises)
    changed = {
        "lease_s": lease_s,
        "promises": _promises_table(promises),
        "load": {one.name: _plain(getattr(spec.load, one.name)) for one in fields(LoadSpec)}
        | {name: _plain(value) for name, value in load.items()},
    }
    return replace(
        spec,
        document=dict(spec.document) | changed,
        lease_s=lease_s,
        promises=promises,
        load=replace(spec.load, **of_load),
    )


def changes(
    spec: GraphSpec, bounds: Mapping[str, Value], load: Mapping[str, Value]
) -> tuple[str, ...]:
    """Each of these bounds, and each value of this load, that the graph file now sets to another value, with both values.

    For example `promises.ends.stall_s = 5 (case: 3)`. Keys are named as in a graph file.
    """
    before, now = {**bounds, **load}, bounds_of(spec) | load_of(spec)
    found = [
        f"{_key_of(name)} = {_shown(now[name])} (case: {_shown(value)})"
        for name, value in before.items()
        if name != "made" and now[name] != value
    ]
    for promise in BUILT_IN_PROMISES if "made" in before else ():
        was, is_now = promise in _texts(before["made"]), promise in spec.promises.made
        if was != is_now and (was or promise in _AT_FIRST):
            found.append(f"promises.{promise} is {_ON[is_now]} (case: {_ON[was]})")
    return tuple(found)


def _texts(value: Value) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


def _key_of(name: str) -> str:
    """The key in a graph file that sets a bound or a value of the load."""
    if name in LOAD:
        return f"load.{name}"
    return name if name == LEASE else ".".join(("promises", *_KEYS.get(name, (name,))))


def _shown(value: Value) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return value if isinstance(value, str) else f"{value:g}"


def _promises_table(promises: Promises) -> dict[str, object]:
    """The `[promises]` table of a graph file that sets every bound of these promises."""
    table: dict[str, Any] = {
        name: {} if name in promises.made else False for name in BUILT_IN_PROMISES
    }
    for field, (promise, key) in _KEYS.items():
        if promise in promises.made:
            table[promise][key] = _plain(getattr(promises, field))
    return table | {"extra": list(promises.extra)}


def _plain(value: Value) -> object:
    """The value as a TOML reader would give it: a tuple becomes a list."""
    return list(value) if isinstance(value, tuple) else value


def read_bounds(table: Table) -> dict[str, Value]:
    """The bounds that a case's file gives.

    Raises:
        InputError: if the file names an unknown bound or promise, or a value has the wrong type.
    """
    found = read_fields(table, BOUNDS)
    for name in table.texts("made"):
        if name not in BUILT_IN_PROMISES:
            known = ", ".join(BUILT_IN_PROMISES)
            raise table.error("made", f'names "{name}", which is not a promise; known: {known}')
    return found


def read_load(table: Table) -> dict[str, Value]:
    """The load that a case's file gives.

    Raises:
        InputError: if the file names an unknown key, or a value has the wrong type.
    """
    return read_fields(table, LOAD)


def read_fields(table: Table, kinds: Mapping[str, object]) -> dict[str, Value]:
    """The values of a table whose keys are names of fields, each checked against its field's type.

    Raises:
        InputError: if a key is unknown, or a value has the wrong type.
    """
    found = {name: _read(table, name, kind) for name, kind in kinds.items() if name in table}
    table.done()
    return found


def _read(table: Table, name: str, kind: object) -> Value:
    if get_origin(kind) is Literal:
        return table.choice(name, [str(choice) for choice in get_args(kind)])
    if kind == tuple[str, ...]:
        return table.texts(name)
    if kind == tuple[int, ...]:
        return table.wholes(name)
    if kind is bool:
        return table.flag(name, default=False)
    if kind is int:
        return table.whole(name)
    if kind is float:
        return table.number(name)
    assert kind is str, f"{name} has a type that a case cannot keep"
    return table.text(name)

"""The JSON form of a case.

The form is easy to read in a review and in a diff: a step is its one-line text, and a count is a number.
A damaged file, or a file of a newer schema, is an `InputError`. The reader does not guess. `schema_1` and `schema_2` upgrade older cases.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, get_args, get_type_hints

from graphquake.harness.errors import InputError
from graphquake.harness.promises.signature import Signature
from graphquake.harness.spec.plan import Step, parse_step, plan_from_json
from graphquake.harness.spec.steps.own.own_table import OwnStep, read_own_steps
from graphquake.harness.spec.steps.table import RESERVED
from graphquake.harness.spec.table import Table
from graphquake.machines.cases import schema_1, schema_2
from graphquake.machines.cases.case import (
    STATUSES,
    Case,
    Difference,
    Observed,
    ShrinkCost,
    Sign,
)
from graphquake.machines.cases.conditions import read_bounds, read_fields, read_load
from graphquake.machines.shrinking.result import Control, Needed, Threshold

SCHEMA: Final = 3
# A file leaves out these keys if their values are empty, 0 or None.
_OPTIONAL: Final = (
    "why", "also", "own_steps", "heal", "stay_s", "any_replica", "needed", "numbers", "differs", "control",
)  # fmt: skip


def case_text(case: Case) -> str:
    """The JSON text of a case's file. Its keys are in the order in which a reader needs them."""
    table = {
        "schema": SCHEMA,
        "id": case.id,
        "title": case.title,
        "status": case.status,
        "why": case.why,
        "graph": dict(case.graph),
        "promise": case.promise,
        "signature": str(case.signature),
        "also": [str(one) for one in case.also],
        "steps": [str(step) for step in case.plan.steps],
        "own_steps": {name: one.to_table() for name, one in case.own_steps.items()},
        "heal": "" if case.plan.heal == "all" else case.plan.heal,
        "stay_s": case.plan.stay_s,
        "any_replica": case.any_replica,
        "seen": case.seen,
        "reach_s": case.reach_s,
        "needed": [_evidence_json(one) for one in case.needed],
        "numbers": [_evidence_json(one) for one in case.numbers],
        "differs": [asdict(one) for one in case.differs],
        "control": asdict(case.control) if case.control else None,
        "bounds": dict(case.bounds),
        "load": dict(case.load),
        "cost": asdict(case.cost),
        "observed": [asdict(one) for one in case.observed],
    }
    shown = {
        key: value
        for key, value in table.items()
        if key not in _OPTIONAL or value or value is False
    }
    return json.dumps(shown, indent=2, ensure_ascii=False) + "\n"


def _evidence_json(one: Needed | Threshold) -> dict[str, Any]:
    """The JSON of one entry of `needed` or `numbers`, with its step as text. A threshold of the plan's stay has no step."""
    step = {"step": str(one.step)} if one.step is not None else {}
    return step | {key: value for key, value in asdict(one).items() if key != "step"}


def read_case(source: str, text: str) -> Case:
    """A case from the text of its file.

    Args:
        source: the beginning of the error messages (a file name).
        text: JSON.

    Raises:
        InputError: if the text is damaged, or of a newer schema.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{source}: is damaged: the text is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"{source}: is damaged: found a {type(data).__name__}, expected a table")
    table = Table(source, data)
    schema = table.whole("schema", at_least=1)
    if schema > SCHEMA:
        raise table.error(
            "schema", f"found {schema}, this graphquake reads up to {SCHEMA}; upgrade it"
        )
    if schema == schema_1.SCHEMA:
        table = Table(source, schema_1.upgraded(table))
        schema = table.whole("schema")
    if schema == schema_2.SCHEMA:
        table = Table(source, schema_2.upgraded(table))
        table.whole("schema")
    return _read(table)


def _read(table: Table) -> Case:
    signature = Signature.parse(table.text("signature"))
    own = read_own_steps(table.name_tables("own_steps"), RESERVED, None)
    case = Case(
        id=table.text("id"),
        title=table.text("title"),
        status=table.choice("status", STATUSES),
        graph=table.name_texts("graph"),
        signature=signature,
        plan=plan_from_json(table, own),
        own_steps=own,
        seen=table.text("seen"),
        why=table.text("why") if "why" in table else "",
        also=tuple(Signature.parse(text) for text in table.texts("also")),
        reach_s=table.number("reach_s", 0.0),
        bounds=read_bounds(table.table("bounds")),
        load=read_load(table.table("load")),
        any_replica=table.flag("any_replica", default=False) if "any_replica" in table else None,
        needed=tuple(_needed(row, own) for row in table.tables("needed")),
        numbers=tuple(_threshold(row, own) for row in table.tables("numbers")),
        differs=tuple(_difference(row) for row in table.tables("differs")),
        control=_control(table.table("control")) if "control" in table else None,
        cost=_cost(table.table("cost")),
        observed=tuple(_observed(row) for row in table.tables("observed")),
    )
    if table.text("promise") != case.promise:
        raise table.error(
            "promise", f"is not the one that its signature begins with, {case.promise}"
        )
    if case.status == "known" and not case.why:
        raise table.error("why", "is missing: a known case says why it is known")
    if "name" not in case.graph:
        raise table.error("graph.name", "is missing")
    table.done()
    return case


def _step(table: Table, own: Mapping[str, OwnStep]) -> Step:
    try:
        return parse_step(table.text("step"), own)
    except ValueError as error:
        raise table.error("step", str(error)) from None


def _needed(table: Table, own: Mapping[str, OwnStep]) -> Needed:
    one = Needed(_step(table, own), table.whole("broke"), table.whole("kept"))
    table.done()
    return one


def _threshold(table: Table, own: Mapping[str, OwnStep]) -> Threshold:
    one = Threshold(
        _step(table, own) if "step" in table else None,
        table.text("name"),
        table.number("value"),
        table.number("below"),
        table.whole("broke"),
        table.whole("kept"),
    )
    table.done()
    return one


def _difference(table: Table) -> Difference:
    one = Difference(
        table.text("fact"),
        table.choice("sign", get_args(Sign)),
        table.number("edge"),
        table.whole("broke"),
        table.whole("kept"),
    )
    table.done()
    return one


def _control(table: Table) -> Control:
    one = Control(table.whole("broke"), table.whole("kept"))
    table.done()
    return one


def _cost(table: Table) -> ShrinkCost:
    kinds: Mapping[str, object] = get_type_hints(ShrinkCost)
    found: dict[str, Any] = dict(read_fields(table, kinds))
    return ShrinkCost(**found)


def _observed(table: Table) -> Observed:
    one = Observed(
        on=table.text("on"),
        versions=table.name_texts("versions"),
        host=table.text("host"),
        broke=table.whole("broke"),
        runs=table.whole("runs"),
        invalid=table.whole("invalid", 0),
    )
    if one.broke > one.runs:
        raise table.error("broke", f"found {one.broke}, expected at most its {one.runs} runs")
    table.done()
    return one

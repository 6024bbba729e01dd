"""The table of the runs in a folder, as Dynamo's fault tolerance suite prints it: for the terminal, Markdown, JSON and CSV.

There is one row for each run. JSON and CSV have all runs in one list, with every number. The printed forms have one table for each graph,
with the most important numbers. A column `b/a` shows two values: before and after the first fault. A dash means that the run has no such
number. `never` means that the event of the column did not happen.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from graphquake.harness.errors import InputError
from graphquake.harness.history.history import History
from graphquake.harness.promises.judgement import judge
from graphquake.harness.promises.verdict import VerdictKind
from graphquake.harness.reports.impact import SLOW_S, Account, Impact, Times, account

FORMATS: Final = ("fancy", "markdown", "json", "csv")
SCHEMA: Final = 1
NOTHING: Final = "–"
# The numbers of each run that `compare` shows, by their names in `flat`.
_COMPARED: Final = (
    "failed",
    "latency_after_s",
    "p99_after_s",
    "window_s",
    "first_ok_s",
    "ready_s",
)


@dataclass(frozen=True, slots=True)
class Record:
    """One run of the table.

    Attributes:
        graph: the name of the graph.
        failure: the name of the scenario, or the plan on one line if the run was not a scenario.
        folder: the folder of the run.
        kind: the verdict: kept, broken or invalid.
        signatures: the signatures of the violations, if the verdict is broken.
        causes: the reasons why the run proves nothing, if the verdict is invalid.
    """

    graph: str
    failure: str
    folder: str
    kind: VerdictKind
    signatures: tuple[str, ...]
    causes: tuple[str, ...]
    numbers: Account


def record_of(history: History, folder: Path, slow_s: float = SLOW_S) -> Record:
    """Return the row of a run. The verdict is computed anew, with the promises of this version of Graphquake.

    Args:
        history: the run.
        folder: its folder.
        slow_s: the time in seconds. A right answer that takes longer counts as slow.
    """
    verdict = judge(history)
    return Record(
        graph=history.spec.name,
        failure=history.host.scenario or history.plan.one_line(),
        folder=str(folder),
        kind=verdict.kind,
        signatures=tuple(map(str, verdict.signatures)),
        causes=verdict.causes,
        numbers=account(history, slow_s),
    )


def read_records(folder: Path, slow_s: float = SLOW_S) -> list[Record]:
    """Read every run below a folder.

    Raises:
        InputError: if the folder holds no run, or a run in it is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder")
    runs = sorted(path.parent for path in folder.rglob("events.jsonl"))
    if not runs:
        raise InputError(f"{folder}: holds no run: no folder below it has an events.jsonl")
    return [record_of(History.load(run), run, slow_s) for run in runs]


# ------------------------------------------------------------------------------------------------------ one run's row


def flat(record: Record) -> dict[str, Any]:
    """Return every number of a run by name, for JSON and CSV. Times are in seconds. None means "never", or that there is no number.

    A run may have several faults. Each number that measures a fault is then the number of the worst fault. It is None if it is None for
    one of the faults: a run that never recovers from one of two faults has not recovered.
    """
    numbers = record.numbers
    row: dict[str, Any] = {
        "graph": record.graph,
        "failure": record.failure,
        "verdict": record.kind,
        "signatures": " | ".join(record.signatures),
        "causes": " | ".join(record.causes),
        "startup_s": numbers.startup_s,
        "success": numbers.ok,
        "failed": numbers.failed,
        "shed": numbers.shed,
    }
    for side, of in (("before", numbers.before), ("after", numbers.after)):
        row |= {
            f"latency_{side}_s": of.latency.mean_s,
            f"p50_{side}_s": of.latency.p50_s,
            f"p99_{side}_s": of.latency.p99_s,
            f"first_token_p50_{side}_s": of.first_token.p50_s,
            f"first_token_p99_{side}_s": of.first_token.p99_s,
            f"pending_{side}": of.pending,
            f"violations_{side}": of.slow,
        }
    for name in ("window_s", "first_ok_s", "peak_s", "ready_s", "expected"):
        row[name] = _worst(numbers.impacts, name)
    row["faults"] = len(numbers.impacts)
    row["folder"] = record.folder
    return {key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()}


def _worst(impacts: Sequence[Impact], name: str) -> float | None:
    values = [getattr(one, name) for one in impacts]
    return None if not values or None in values else max(values)


def _cells(record: Record) -> dict[str, str]:
    """Return the texts of the printed row of a run, by the names of their columns."""
    numbers, row = record.numbers, flat(record)
    struck = bool(numbers.impacts)

    def after(name: str, none: str = "never") -> str:
        if not struck:
            return NOTHING
        return none if row[name] is None else f"{row[name]:.2f}"

    before, then = numbers.before, numbers.after
    # The expected failures of several faults can't be added, because the same request would count twice.
    alone = len(numbers.impacts) == 1 and row["expected"] is not None
    expected = f" ({row['expected']:.0f})" if alone else ""
    return {
        "failure": record.failure,
        "startup": f"{numbers.startup_s:.2f}",
        "success": str(numbers.ok),
        "failed (exp.)": f"{numbers.failed}{expected}",
        "latency b/a": _pair(_mean(before.latency), _mean(then.latency), struck),
        "p99 b/a": _pair(_p99(before.latency), _p99(then.latency), struck),
        "pending b/a": _pair(_one(before.pending), _one(then.pending), struck),
        "violations b/a": _pair(str(before.slow), str(then.slow), struck),
        "errors for": after("window_s", "to the end"),
        "served": after("first_ok_s"),
        "peak": after("peak_s"),
        "recovery": after("ready_s"),
        "verdict": record.kind,
    }


def _pair(before: str, after: str, struck: bool) -> str:  # noqa: FBT001 - private
    return f"{before}/{after if struck else NOTHING}"


def _mean(times: Times) -> str:
    return NOTHING if times.mean_s is None else f"{times.mean_s:.2f}"


def _p99(times: Times) -> str:
    return NOTHING if times.p99_s is None else f"{times.p99_s:.2f}"


def _one(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"


# --------------------------------------------------------------------------------------------------------- the tables


def render(records: Sequence[Record], form: str) -> str:
    """Return the tables of all runs as one text.

    Args:
        records: the runs, in the order of the rows.
        form: one of `FORMATS`.
    """
    if form == "json":
        rows = [
            flat(one) | {"impacts": [asdict(impact) for impact in one.numbers.impacts]}
            for one in records
        ]
        return json.dumps({"schema": SCHEMA, "runs": rows}, indent=1, ensure_ascii=False)
    if form == "csv":
        return _csv(map(flat, records))
    parts = []
    for graph in dict.fromkeys(record.graph for record in records):
        of = [record for record in records if record.graph == graph]
        lines = _lines([_cells(one) for one in of], form)
        parts.append("\n".join([f"### {graph}\n" if form == "markdown" else graph, *lines]))
        parts += [_reasons(one) for one in of if one.kind != "kept"]
    return "\n\n".join(parts)


def _reasons(record: Record) -> str:
    why = "; ".join(record.signatures or record.causes)
    return f"{record.graph}, {record.failure}: {record.kind}: {why}"


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def _lines(rows: Sequence[Mapping[str, str]], form: str) -> list[str]:
    names = list(rows[0])
    if form == "markdown":
        marks = ["---" if name in ("failure", "verdict") else "--:" for name in names]
        cells = [names, marks, *(list(row.values()) for row in rows)]
        return [f"| {' | '.join(one)} |" for one in cells]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    table = [{name: name for name in names}, *rows]
    lines = [
        " │ ".join(
            cell.ljust(widths[name]) if name in ("failure", "verdict") else cell.rjust(widths[name])
            for name, cell in row.items()
        ).rstrip()
        for row in table
    ]
    return [lines[0], "─┼─".join("─" * width for width in widths.values()), *lines[1:]]


def compare(old: Sequence[Record], new: Sequence[Record], form: str) -> str:
    """Return a table with the old and the new value of each number, for the runs of two folders.

    Runs are matched by graph and by scenario or plan. A run that only one folder has is shown as well, with dashes for the other.

    Args:
        old, new: the runs of the two folders.
        form: one of `FORMATS`.
    """
    before, after = _by_name(old), _by_name(new)
    rows = []
    for key in dict.fromkeys([*before, *after]):
        was, now = before.get(key), after.get(key)
        row: dict[str, Any] = {"graph": key[0], "failure": key[1]}
        row["verdict"] = _arrow(was and was["verdict"], now and now["verdict"])
        for name in _COMPARED:
            row[name] = _arrow(was and was[name], now and now[name])
        rows.append(row)
    if form == "json":
        return json.dumps({"schema": SCHEMA, "compared": rows}, indent=1, ensure_ascii=False)
    return _csv(rows) if form == "csv" else "\n".join(_lines(rows, form))


def _by_name(records: Sequence[Record]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the numbers of runs, by graph and by scenario or plan. Of several runs with the same name, the last one is returned."""
    return {(one.graph, one.failure): flat(one) for one in records}


def _arrow(was: Any, now: Any) -> str:
    """Return the old value, the new value and the relative change, e.g. `0.31 → 0.28 (-10%)`. Equal values are shown once."""
    left, right = _shown(was), _shown(now)
    if left == right:
        return left
    numbers = isinstance(was, int | float) and isinstance(now, int | float) and was > 0
    return f"{left} → {right}" + (f" ({now / was - 1:+.0%})" if numbers else "")


def _shown(value: Any) -> str:
    if value is None:
        return NOTHING
    return f"{value:.2f}" if isinstance(value, float) else str(value)

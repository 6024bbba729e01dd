"""Make the runs of a finished search again, as its journal has them: `graphquake replay-journal`.

The plans, their order of starts, their purposes, and the conditions of each run are those of the journal. Nothing is chosen: no plan is
drawn, no result changes what comes next, and no case is saved. Then the verdicts are compared, run by run.

The graphs are live, so their timing is not the same. Runs that the search gave up before their end are not in the journal, and are left
out. So is each run that the machine disturbed and the runner repeated at once: it may be repeated here, too.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from graphquake.harness.errors import InputError
from graphquake.harness.history.history import History
from graphquake.harness.promises.judgement import judge
from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import VerdictKind
from graphquake.harness.run.early_verdict import Enough
from graphquake.harness.spec.feasible import check_plan
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, read_plan
from graphquake.harness.spec.table import Table, shown
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import SEARCH, Begun, Runner, RunResult

NAME: Final = "journal.jsonl"
KINDS: Final[tuple[VerdictKind, ...]] = ("kept", "broken", "invalid")
# The purpose of the replay of a case is this word and the id of the case.
CASE: Final = "replay "
ANY: Final = "any"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run of the journal.

    Attributes:
        where: the file and the number of the line, for error messages.
        run: the number of the run.
        plan: the plan.
        why: the purpose of the run.
        says: its verdict.
        what: its unexplained signatures with semicolons between them, or the cause of an invalid run.
        explained: true if a case explained other violations. Then `what` does not name all of them.
        begun: how and why it was begun.
    """

    where: str
    run: int
    plan: Plan
    why: str
    says: VerdictKind
    what: str
    explained: bool
    begun: Begun

    @property
    def case(self) -> str:
        """The id of the case that the run replayed, or empty."""
        return self.why.removeprefix(CASE) if self.why.startswith(CASE) else ""


def read_journal(path: Path, spec: GraphSpec) -> list[Recorded]:
    """Read the runs of a journal, in the order in which they were begun.

    A journal of an older version does not tell how its runs were begun. Then they count as begun in the order of their lines, and as whole.

    Args:
        path: the journal, or the folder that it is in.
        spec: the graph.

    Raises:
        InputError: if there is no journal or no run, or if a line is damaged. A last line without an end is passed over.
    """
    path = path / NAME if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror or error}; expected the {NAME} of a search"
        ) from None
    found: dict[int, Recorded] = {}
    count = 0
    # The last part is empty, or a line that was cut off.
    for number, line in enumerate(text.split("\n")[:-1], 1):
        table = _table(f"{path}: line {number}", line)
        if "run" not in table:
            continue
        count += 1
        if (run := table.whole("run")) != count:
            raise table.error("run", f"found {run}, expected {count}: a line is missing, or moved")
        one = _recorded(table, run, spec)
        # Of several runs with one start, the last one counts: the runner has repeated the others at once.
        found[one.begun.number] = one
    if not found:
        raise InputError(f"{path}: found no run, expected the journal of a search with runs")
    return sorted(found.values(), key=lambda one: one.begun.number)


def _table(where: str, line: str) -> Table:
    with suppress(ValueError):
        row = json.loads(line)
        if isinstance(row, dict):
            return Table(where, row)
    raise InputError(f"{where}: found {shown(line)}, expected a JSON object")


def _recorded(table: Table, run: int, spec: GraphSpec) -> Recorded:
    where, why = table.source, table.text("why")
    lines = table.values.get("plan")
    if not isinstance(lines, list) or not all(isinstance(one, str) for one in lines):
        raise table.error("plan", f"found {shown(lines)}, expected a list of steps")
    plan = read_plan(where, "\n".join(lines), spec.own_steps)
    check_plan(spec, plan, where)
    begun = Begun(
        table.whole("begun", run, at_least=1),
        str(table.values.get("reason", "")),
        may_reuse=table.flag("may_reuse", default=why == SEARCH),
        patient=table.flag("patient", default=True),
        until=str(table.values.get("until", "")),
    )
    return Recorded(
        where,
        run,
        plan,
        why,
        table.choice("says", KINDS),
        str(table.values.get("what", "")),
        bool(table.values.get("explained by")),
        begun,
    )


class Compared(NamedTuple):
    """A run of the journal, and the same run today."""

    recorded: Recorded
    today: RunResult

    @property
    def is_same(self) -> bool:
        """True if both have the same verdict. Two broken runs must share a signature, if the journal has them all."""
        was, verdict = self.recorded, self.today.verdict
        if was.says != verdict.kind:
            return False
        if was.says != "broken" or was.explained:
            return True
        before = set(map(Signature.parse, was.what.split("; ")))
        return not before.isdisjoint(verdict.signatures)

    @property
    def line(self) -> str:
        """The run, and its two verdicts."""
        was, verdict = self.recorded, self.today.verdict
        now = "; ".join(verdict.causes[:1] or map(str, verdict.signatures))
        reason = f", {was.begun.reason}" if was.begun.reason else ""
        before = f"{was.says} {was.what}".strip()
        return f"run {was.run} ({was.why}{reason}): {was.plan.one_line()}: was {before}, is {f'{verdict.kind} {now}'.strip()}"


def replay_journal(
    runs: Iterable[Recorded],
    runner: Runner,
    log: RunLog,
    specs: Mapping[str, GraphSpec] = MappingProxyType({}),
) -> Iterator[Compared]:
    """Make the runs of a journal again, in the order in which they were begun. As many go on side by side as there are slots.

    Yields each run as soon as it is over, in the same order.

    Args:
        runs: the runs.
        runner: runs the plans.
        log: the log that takes a line for each run.
        specs: the graph under the bounds and the load of each case that the journal replays, by the id of the case.

    Raises:
        BudgetSpent: if no run fits into the budget any more, after the runs in progress.
    """
    going_on: deque[tuple[Recorded, Callable[[], RunResult]]] = deque()
    left, spent = deque(runs), False
    while going_on or (left and not spent):
        if left and not spent and len(going_on) < runner.slots:
            one, begun = left[0], left[0].begun
            try:
                pending = runner.start(
                    one.plan, one.why, enough=_enough(begun.until), may_reuse=begun.may_reuse, patient=begun.patient,
                    spec=specs.get(one.case),
                )  # fmt: skip
            except BudgetSpent:
                spent = True
                continue
            going_on.append((left.popleft(), partial(runner.result, pending)))
            continue
        one, result_of = going_on.popleft()
        compared = Compared(one, result_of())
        _log(log, compared)
        yield compared
        if compared.is_same:
            runner.discard(compared.today)
    if spent:
        raise BudgetSpent


def _log(log: RunLog, compared: Compared) -> None:
    one, today = compared
    verdict = today.verdict
    begun = replace(one.begun, number=log.begin())
    what = verdict.causes[0] if verdict.causes else "; ".join(map(str, verdict.signatures))
    for spoiled, live_s in today.disturbed:
        log.run(one.plan, one.why, spoiled, live_s, spoiled.causes[0], begun=begun)
    folder = today.folder.name if today.folder else ""
    log.run(one.plan, one.why, verdict, today.live_s, what, folder=folder, begun=begun)


def _enough(until: str) -> Enough | None:
    """The end of a run that the search ended early, or None for a whole run."""
    if not until:
        return None
    return partial(_shows, None if until == ANY else Signature.parse(until))


def _shows(wanted: Signature | None, history: History) -> bool:
    return any(wanted in (None, one.signature) for one in judge(history).violations)

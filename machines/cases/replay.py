"""Replays a case, to see whether its bug is still there.

A replay runs the case's plan on fresh graphs. The runs have the case's own bounds and load, or those of the graph file. It ends with the
first run that shows the case's signature, or when `runs_needed` valid runs did not show it. The second end means, with a confidence of
95%, that the plan now breaks its promise in a smaller share of runs than before. The meaning of the result depends on the status of the
case (see `meaning_of`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal, TypeAlias

from graphquake.harness.clients.answers import find_oracle
from graphquake.harness.errors import InputError
from graphquake.harness.history.history import History
from graphquake.harness.history.host import Host
from graphquake.harness.promises.builtin import promises_of
from graphquake.harness.promises.judgement import judge
from graphquake.harness.promises.signature import Signature
from graphquake.harness.spec.feasible import check_plan
from graphquake.harness.spec.graph import GraphSpec
from graphquake.machines.cases.case import Case, Observed
from graphquake.machines.cases.conditions import changes
from graphquake.machines.runners.budget import Budget, BudgetSpent
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import Begun, PendingRun, Runner, RunResult
from graphquake.machines.shrinking.stats import SURE, passes_to_reject

RUNS_MIN: Final = 3
INVALID_MAX: Final = 3
Word: TypeAlias = Literal["REPRODUCED", "NOT REPRODUCED", "UNDECIDED", "INVALID"]


@dataclass(frozen=True, slots=True)
class Replay:
    """The result of a replay.

    Attributes:
        case: the case that was replayed.
        word: `REPRODUCED` if a run showed the case's signature, `NOT REPRODUCED` if enough valid runs did not show it. `UNDECIDED` if the
            budget ended first. `INVALID` if the graph can't run the plan, or too many runs were invalid.
        broke: how many runs showed the case's signature.
        runs: how many runs were valid.
        invalid: how many runs were invalid. They are not among `runs`.
        others: signatures that the runs showed and the case does not name.
        differs: each version that has changed since the last entry of the case's `observed`, and the host if it has changed, as text.
        shown: the last run that showed the case's signature. If none did, it is the first run, or None without a run.
        why: the reason why the graph can't run the plan any more. Empty if it can.
        changed: each bound and each value of the load that the graph file now sets otherwise than the case.
        today: true if the runs had the bounds and the load of the graph file, false if they had those of the case.
    """

    case: Case
    word: Word
    broke: int
    runs: int
    invalid: int
    others: tuple[Signature, ...]
    differs: tuple[str, ...]
    shown: RunResult | None
    why: str = ""
    changed: tuple[str, ...] = ()
    today: bool = False

    @property
    def line(self) -> str:
        """The result in a line: the word, and the counts behind it."""
        if self.why:
            return f"INVALID {self.why}"
        if self.word == "INVALID":
            return f"INVALID {self.invalid} runs proved nothing"
        count = f"{self.broke}/{self.runs}"
        if self.word == "NOT REPRODUCED":
            sure = min(SURE, 1 - (1 - self.case.rate) ** self.runs)
            rate = f"the rate is still at least {self.case.rate:.0%}"
            return f"NOT REPRODUCED {count} ({sure:.0%} sure, if {rate})"
        return f"{self.word} {count}" + (", budget" if self.word == "UNDECIDED" else "")

    @property
    def conditions(self) -> str:
        """The bounds and the load of the runs in one line, and where the graph file and the case differ."""
        whose = "the graph file's" if self.today else "the case's own"
        if not self.changed:
            return f"{whose}; the graph file and the case agree"
        hint = "" if self.today else "; --today uses the graph file's"
        return f"{whose}; the graph file now says {', '.join(self.changed)}{hint}"

    def observed(self, on: str, host: Host) -> Observed:
        """The entry that a recorded replay adds to its case.

        Args:
            on: the day, ISO 8601.
            host: the machine and the versions.
        """
        return Observed(on, dict(host.versions), host.machine, self.broke, self.runs, self.invalid)


def runs_needed(case: Case) -> int:
    """The number of kept runs in a row that show, with a confidence of 95%, that a case's rate is lower now. At least `RUNS_MIN`."""
    return max(RUNS_MIN, passes_to_reject(case.rate))


def impossible(case: Case, spec: GraphSpec) -> str:
    """Return the reason why the graph can't run a case's plan any more. Empty if it can.

    The graph file may have changed since the case was saved.
    """
    try:
        check_plan(spec, case.plan, "cannot be done any more")
        if case.promise not in spec.promises.names:
            return f"{spec.path.name}: promises: {case.promise} is switched off, so it cannot be broken"
        # A case names its own promises and oracle. Their code may have moved since the case was saved.
        promises_of(spec)
        find_oracle(spec)
    except InputError as error:
        return str(error)
    return ""


@dataclass(slots=True)
class CaseReplay:
    """The replay of one case.

    Attributes:
        case: the case.
        runner: runs plans.
        journal: the log that takes a line for each run.
        spec: the graph under the bounds and the load of the runs, if they are not those of the runner.
        now: the graph as its file describes it now. If None, the file is taken to agree with the case.
        runs: the number of valid runs. If None, the replay ends at the first run that shows the case's signature, and makes at most
            `runs_needed` valid runs.
        briefly: if true, a run ends as soon as it has shown the case's signature. What else it would have shown is not known then.
        limit: begins the budget of this replay, when it has its turn. It bounds the replay beside the budget of the runner.
    """

    case: Case
    runner: Runner
    journal: RunLog
    spec: GraphSpec | None = None
    now: GraphSpec | None = None
    runs: int | None = None
    briefly: bool = False
    limit: Callable[[], Budget] | None = None
    _budget: Budget | None = None
    _first: PendingRun | None = None

    @property
    def why_impossible(self) -> str:
        """The reason why the graph can't run the case's plan any more. Empty if it can."""
        return impossible(self.case, self.spec or self.runner.spec)

    def begin(self) -> None:
        """Begin the first run, so that it goes on beside others. If that is not possible, `finish` says why."""
        if not self.why_impossible:
            with suppress(BudgetSpent):
                self._first = self._start()

    def finish(self) -> Replay:
        """Run the plan until the result is clear."""
        case = self.case
        changed = changes(self.now, case.bounds, case.load) if self.now else ()
        done = partial(
            Replay,
            case,
            differs=_differs(case, self.runner.host),
            changed=changed,
            today=self.spec is None and self.runner.spec is self.now,
        )
        if why := self.why_impossible:
            return done("INVALID", 0, 0, 0, (), shown=None, why=why)
        if self.limit is not None:
            self._budget = self.limit()
            if self._first is not None:
                self._count_run()
        broke = kept = invalid = 0
        others: Counter[Signature] = Counter()
        shown: RunResult | None = None
        needed = self.runs or runs_needed(case)
        spent = False
        while broke + kept < needed and invalid < INVALID_MAX and (self.runs or not broke):
            try:
                outcome = self._next()
            except BudgetSpent:
                spent = True
                break
            verdict = outcome.verdict
            own = any(one.signature == case.signature for one in verdict.violations)
            others.update(one for one in verdict.signatures if not case.names(one))
            invalid += verdict.kind == "invalid"
            broke += own
            kept += verdict.kind != "invalid" and not own
            if own or shown is None:
                shown = outcome
            else:
                self.runner.discard(outcome)
        word = _word(broke, kept, needed, spent=spent)
        return done(word, broke, broke + kept, invalid, tuple(others), shown=shown)

    @property
    def _why(self) -> str:
        return f"replay {self.case.id}"

    def _start(self) -> PendingRun:
        if self._budget is not None and not self._budget.has_room(0.0):
            raise BudgetSpent
        signature = self.case.signature
        enough = partial(_shows, signature) if self.briefly else None
        pending = self.runner.start(self.case.plan, self._why, enough=enough, spec=self.spec)
        self._count_run()
        until = str(signature) if self.briefly else ""
        begun = Begun(self.journal.begin(), f"{self.case.status} case", until=until)
        return replace(pending, begun=begun)

    def _count_run(self) -> None:
        if self._budget is not None:
            self._budget.begin_run()

    def _next(self) -> RunResult:
        """Wait for the first run if it was begun, or make one."""
        pending, self._first = self._first or self._start(), None
        result = self.runner.result(pending)
        plan, begun = self.case.plan, pending.begun
        for spoiled, live_s in result.disturbed:
            self.journal.run(plan, self._why, spoiled, live_s, spoiled.causes[0], begun=begun)
            self._count_run()
        self.journal.made_good += len(result.disturbed) if result.verdict.kind != "invalid" else 0
        self.journal.run(plan, self._why, result.verdict, result.live_s, _what(result), begun=begun)
        return result


def _shows(signature: Signature, history: History) -> bool:
    """True if the history so far shows this signature."""
    return any(one.signature == signature for one in judge(history).violations)


def _what(outcome: RunResult) -> str:
    verdict = outcome.verdict
    return verdict.causes[0] if verdict.causes else "".join(map(str, verdict.signatures[:1]))


def _word(broke: int, kept: int, needed: int, *, spent: bool) -> Word:
    if broke:
        return "REPRODUCED"
    if kept >= needed:
        return "NOT REPRODUCED"
    return "UNDECIDED" if spent else "INVALID"


def _differs(case: Case, host: Host) -> tuple[str, ...]:
    """Each version, and the host, that has changed since the last entry of the case's `observed`: `name old -> new`."""
    if not case.observed:
        return ()
    last = case.observed[-1]
    before, now = last.versions, host.versions
    changed = [
        f"{name} {before.get(name, 'none')} -> {now.get(name, 'none')}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]
    same = host.machine == last.host or f"({host.machine})" in last.host
    machine = [] if same else [f"{last.host} -> {host.machine}"]
    return (*changed, *machine)


def meaning_of(one: Replay) -> tuple[bool, str]:
    """The meaning of a replay, given the status of its case: true if it fails the session, and the meaning in words."""
    case, there = one.case, one.word == "REPRODUCED"
    if one.word in ("UNDECIDED", "INVALID"):
        return False, one.line
    if case.status == "fixed":
        return there, "it is back" if there else "still fixed"
    if case.status == "open":
        return there, "still there" if there else "not seen again"
    if case.status == "known":
        return False, "known, broke again" if there else "perhaps fixed"
    return False, f"{case.status}: {'seen again' if there else 'not seen again'}"


def recorded(case: Case, one: Observed) -> Case:
    """The case with one more entry in `observed`."""
    return replace(case, observed=(*case.observed, one))

"""Replaying a case: is it still there?

A replay runs the case's plan under the case's own bounds and load, on fresh graphs, until one run breaks it in the case's way, or enough
runs kept it to be 95% sure that its rate is no longer what it was. What it means depends on the case's status (see `meaning_of`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from graphquake.harness.clients.answers import find_oracle
from graphquake.harness.errors import InputError
from graphquake.harness.promises.builtin import promises_of
from graphquake.harness.promises.signature import Signature
from graphquake.harness.spec.graph import GraphSpec
from graphquake.machines.cases.case import Case, Observed
from graphquake.machines.plans.graph_model import check_plan
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import Runner, RunResult
from graphquake.machines.shrinking.rates import SURE, passes_to_reject

RUNS_MIN: Final = 3
INVALID_MAX: Final = 3
Word: TypeAlias = Literal["REPRODUCED", "NOT REPRODUCED", "UNDECIDED", "INVALID"]


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay saw.

    Attributes:
        broke, runs, invalid: as in `Observed`.
        others: signatures that were seen besides the case's own.
        shown: the last run that broke it, or the last one at all.
        why: why there was no run at all.
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

    @property
    def line(self) -> str:
        """One word and what it rests on."""
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

    def observed(self, on: str, host: dict[str, str]) -> Observed:
        """The line that a recorded replay adds to its case."""
        return Observed(
            on, versions_of(host), host.get("host", ""), self.broke, self.runs, self.invalid
        )


def versions_of(host: dict[str, str]) -> dict[str, str]:
    """The versions in a description of a host."""
    return {name: value for name, value in host.items() if name not in ("host", "began", "python")}


def runs_needed(case: Case) -> int:
    """How many kept runs say that a case's rate is no longer what it was."""
    return max(RUNS_MIN, passes_to_reject(case.rate))


def impossible(case: Case, spec: GraphSpec) -> str:
    """Why a graph that changed since cannot do a case's plan any more; empty if it can."""
    try:
        check_plan(spec, case.plan, "cannot be done any more")
        # A case brings its own promises and oracle, and the code behind them may have moved since.
        promises_of(spec)
        find_oracle(spec)
    except InputError as error:
        return str(error)
    return ""


def replay(case: Case, runner: Runner, journal: RunLog, *, runs: int | None = None) -> Replay:
    """Run a case's plan until it is decided.

    Args:
        runner: runs under the case's own bounds and load (see `Case.as_in`).
        runs: do exactly so many, broken or not; None stops at the first that breaks it.
    """
    if why := impossible(case, runner.spec):
        return Replay(case, "INVALID", 0, 0, 0, (), _differs(case, runner.host), None, why)
    broke = kept = invalid = 0
    others: Counter[Signature] = Counter()
    shown: RunResult | None = None
    needed = runs or runs_needed(case)
    spent = False
    while broke + kept < needed and invalid < INVALID_MAX and (runs or not broke):
        try:
            outcome = runner.run(case.plan, f"replay {case.id}")
        except BudgetSpent:
            spent = True
            break
        verdict = outcome.verdict
        journal.run(case.plan, f"replay {case.id}", verdict.kind, outcome.live_s, _what(outcome))
        own = [v for v in verdict.violations if v.signature == case.signature]
        others.update(one for one in verdict.signatures if not case.names(one))
        invalid += verdict.kind == "invalid"
        broke += bool(own)
        kept += verdict.kind != "invalid" and not own
        if own or shown is None:
            shown = outcome
        else:
            runner.discard(outcome)
    word = _word(broke, kept, needed, spent=spent)
    return Replay(
        case, word, broke, broke + kept, invalid, tuple(others), _differs(case, runner.host), shown
    )


def _what(outcome: RunResult) -> str:
    verdict = outcome.verdict
    return verdict.causes[0] if verdict.causes else "".join(map(str, verdict.signatures[:1]))


def _word(broke: int, kept: int, needed: int, *, spent: bool) -> Word:
    if broke:
        return "REPRODUCED"
    if kept >= needed:
        return "NOT REPRODUCED"
    return "UNDECIDED" if spent else "INVALID"


def _differs(case: Case, host: dict[str, str]) -> tuple[str, ...]:
    """What is not as it was when the case was last seen."""
    if not case.observed:
        return ()
    last = case.observed[-1]
    now = versions_of(host) | {"host": host.get("host", "")}
    before = dict(last.versions) | {"host": last.host}
    names = [*before, *(name for name in now if name not in before)]
    return tuple(
        f"{before.get(name, 'none')} -> {now.get(name, 'none')}"
        if name == "host"
        else f"{name} {before.get(name, 'none')} -> {now.get(name, 'none')}"
        for name in names
        if before.get(name) != now.get(name)
    )


def meaning_of(one: Replay) -> tuple[bool, str]:
    """What a replay means for its case: whether it fails, and in words."""
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
    """The case with one line more."""
    return replace(case, observed=(*case.observed, one))

"""The journal says why each plan was run, and its runs can be made again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from graphquake.harness.errors import EXIT_KEPT, InputError
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.cases.replay import CaseReplay
from graphquake.machines.frontends.cli import main
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.runners.run_log import RunLog, run_rows
from graphquake.machines.runners.runner import PendingRun
from graphquake.machines.sessions.replay_journal import Compared, read_journal, replay_journal

from support.made import plan_of, spec_of
from support.searched import PAIR, searched
from support.sim_runner import Bug, SimRunner

pytestmark = pytest.mark.simulated

SINGLE = Bug(plan_of("stall decode 0 for 1.00 s"), "wrong tokens")
BUGS = [SINGLE, Bug(PAIR, "tokens lost", rate=0.6)]
# The keys of a row that an older version did not write.
NEW_KEYS = ("begun", "reason", "score", "price_s", "may_reuse", "patient", "until")
Order = tuple[Plan, str, bool, bool, bool]


@dataclass(slots=True)
class Watched(SimRunner):
    """Notes each run that is begun: its plan, its purpose, whether it may end early, whether it may reuse a graph, and its patience."""

    orders: list[Order] = field(default_factory=list)

    def start(
        self, plan: Plan, why: str, *, enough: Any = None, may_reuse: bool = False, patient: bool = True,
        spec: GraphSpec | None = None,
    ) -> PendingRun:  # fmt: skip
        """See `SimRunner.start`."""
        pending = SimRunner.start(
            self, plan, why, enough=enough, may_reuse=may_reuse, patient=patient, spec=spec
        )
        self.orders.append((plan, why, enough is not None, may_reuse, patient))
        return pending


def made_again(journal: Path, runner: SimRunner, log: RunLog | None = None) -> Iterator[Compared]:
    """Make the runs of a journal again on a simulated graph."""
    return replay_journal(read_journal(journal, runner.spec), runner, log or RunLog())


def edited(journal: Path, line: int, **changes: object) -> None:
    """Change keys of a run in a journal.

    Args:
        journal: the file.
        line: the line, from 0.
        changes: key -> its new value, or None to remove the key.
    """
    lines = journal.read_text().splitlines()
    row = json.loads(lines[line]) | changes
    lines[line] = json.dumps({key: value for key, value in row.items() if value is not None})
    journal.write_text("".join(f"{one}\n" for one in lines))


def line_of_run(journal: Path, number: int) -> int:
    """The line of a run in a journal, from 0."""
    rows = map(json.loads, journal.read_text().splitlines())
    return next(line for line, row in enumerate(rows) if row.get("run") == number)


def test_every_run_has_a_reason(tmp_path: Path) -> None:
    """Each phase of a search has its own reason. A choice by novelty has a score, and each run of the search has an expected price."""
    journal = tmp_path / "journal.jsonl"
    searched(SimRunner(BUGS, runs_max=150, seed=1), tmp_path, findings_max=3, journal=journal)
    rows = list(run_rows(journal))
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["why"], set()).add(row["reason"])
    assert found["search"] >= {"sweep", "plain pair", "pair", "drawn", "second sweep"}
    assert found["confirm"] == {"confirm", "control"}
    assert found["evidence"] == {"whole run"}
    assert found["more runs"] == {"fewest runs"}
    assert found["shrink"] >= {"confirm", "control, without the faults"}
    assert all(all(reasons) for reasons in found.values())
    scored = {row["reason"] for row in rows if "score" in row}
    assert scored == {"pair", "drawn"}
    assert all(row["score"] > 0 for row in rows if "score" in row)
    assert {row["why"] for row in rows if "price_s" in row} == {"search"}
    assert all(row["price_s"] > 0 for row in rows if row["why"] == "search")
    begun = [row["begun"] for row in rows]
    assert begun == list(range(1, len(rows) + 1))


def test_runs_that_come_back_say_so(tmp_path: Path) -> None:
    """A plan whose run was invalid is run again for that reason. The replay of a case names the status of the case."""
    journal = tmp_path / "journal.jsonl"
    searched(SimRunner([], runs_max=25, seed=1, invalid=0.3), tmp_path, journal=journal)
    rows = list(run_rows(journal))
    spoiled = {tuple(row["plan"]) for row in rows if row["says"] == "invalid"}
    again = {tuple(row["plan"]) for row in rows if row["reason"] == "invalid before"}
    assert again
    assert again <= spoiled
    searched(SimRunner([SINGLE], runs_max=30), tmp_path / "found")
    (case, *_) = Corpus(tmp_path / "found" / "cases")
    log = RunLog(tmp_path / "replay.jsonl")
    CaseReplay(case, SimRunner([SINGLE]), log, briefly=True).finish()
    log.close()
    (row,) = run_rows(tmp_path / "replay.jsonl")
    assert (row["reason"], row["until"]) == ("open case", str(case.signature))


@pytest.mark.parametrize("slots", [1, 2])
def test_a_replay_makes_the_same_runs(tmp_path: Path, slots: int) -> None:
    """They have the same plans, order, purposes and conditions. With several slots, only the runs that were cancelled are left out."""
    journal = tmp_path / "journal.jsonl"
    first = Watched(BUGS, runs_max=130, seed=3, slots=slots)
    rounds, _ = searched(first, tmp_path, findings_max=2, journal=journal)
    whys = {row["why"] for row in run_rows(journal)}
    assert whys >= {"search", "confirm", "shrink", "evidence"}
    again, log = Watched(BUGS, seed=4, slots=slots), RunLog(tmp_path / "again.jsonl")
    compared = list(made_again(journal, again, log))
    log.close()
    kept = {row["begun"] for row in run_rows(journal)}
    assert len(first.orders) - len(kept) == rounds.log.unneeded
    assert again.orders == [one for n, one in enumerate(first.orders, 1) if n in kept]
    assert len(compared) == len(kept)
    # The journal of the replay can be replayed, too.
    third = Watched(BUGS, seed=5, slots=slots)
    list(made_again(tmp_path / "again.jsonl", third))
    assert third.orders == again.orders
    reasons = [
        [row["reason"] for row in sorted(run_rows(path), key=lambda row: row["begun"])]
        for path in (journal, tmp_path / "again.jsonl")
    ]
    assert reasons[0] == reasons[1]


def test_a_difference_has_a_line(tmp_path: Path) -> None:
    """A run that breaks no more, and a run that breaks another promise, differ. The line has the run, its reason and both verdicts."""
    journal = tmp_path / "journal.jsonl"
    searched(SimRunner([SINGLE], runs_max=30), tmp_path, journal=journal)
    assert all(one.is_same for one in made_again(journal, SimRunner([SINGLE])))
    differ = [one for one in made_again(journal, SimRunner([])) if not one.is_same]
    broken = [row for row in run_rows(journal) if row["says"] == "broken"]
    assert [one.recorded.run for one in differ] == [row["run"] for row in broken]
    number = broken[0]["run"]
    text = "; ".join(broken[0]["plan"])
    assert differ[0].line == (
        f"run {number} (search, sweep): {text}: was broken answers / wrong tokens, is kept"
    )
    other = Bug(SINGLE.needs, "tokens lost")
    wrong = [one for one in made_again(journal, SimRunner([other])) if not one.is_same]
    assert {one.recorded.says for one in wrong} == {one.today.verdict.kind for one in wrong}


def test_a_replay_ends_with_the_budget(tmp_path: Path) -> None:
    """The runs in progress are taken first. Those that were not made are left."""
    journal = tmp_path / "journal.jsonl"
    searched(SimRunner([], runs_max=12), tmp_path, journal=journal)
    runs = made_again(journal, SimRunner([], runs_max=7, slots=3))
    assert len([next(runs) for _ in range(7)]) == 7
    with pytest.raises(BudgetSpent):
        next(runs)


def test_an_older_journal_is_read(tmp_path: Path) -> None:
    """Its reasons are not known, and its runs count as begun in the order of their lines. A line that was cut off is passed over."""
    journal = tmp_path / "journal.jsonl"
    searched(SimRunner(BUGS, runs_max=40), tmp_path, journal=journal)
    total = len(list(run_rows(journal)))
    for number in range(1, total + 1):
        edited(journal, line_of_run(journal, number), **dict.fromkeys(NEW_KEYS))
    with journal.open("a") as file:
        file.write('{"run": 99, "why": "sear')
    runs = read_journal(journal, spec_of())
    assert [one.run for one in runs] == list(range(1, total + 1))
    assert {one.begun.reason for one in runs} == {""}
    assert {one.why for one in runs if one.begun.may_reuse} == {"search"}
    assert len(list(made_again(journal, SimRunner(BUGS)))) == total
    # A search that goes on does not continue the line that was cut off, and its runs are counted on.
    log = RunLog(journal, goes_on=True)
    log.run(PAIR, "search", next(made_again(journal, SimRunner([]))).today.verdict, 1.0, "")
    log.close()
    assert [row["run"] for row in run_rows(journal)] == list(range(1, total + 2))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"plan": ["kill decode 9"]}, '"kill decode 9"'),
        ({"plan": ["kick decode 0"]}, "kick"),
        ({"plan": "kill decode 0"}, 'plan: found "kill decode 0", expected a list of steps'),
        ({"says": "fine"}, 'says: found "fine", expected one of kept, broken, invalid'),
        ({"why": None}, "why: is missing"),
        ({"begun": "first"}, 'begun: found "first", expected a whole number'),
        ({"run": 4}, "run: found 4, expected 3: a line is missing, or moved"),
    ],
)
def test_an_edited_journal_is_an_error(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    """The error names the file, the line, and what was found and expected."""
    journal = tmp_path / "journal.jsonl"
    searched(SimRunner([], runs_max=5), tmp_path, journal=journal)
    line = line_of_run(journal, 3)
    edited(journal, line, **changes)
    with pytest.raises(InputError) as caught:
        read_journal(tmp_path, spec_of())
    assert str(caught.value).startswith(f"{journal}: line {line + 1}: ")
    assert said in str(caught.value)


def test_a_missing_or_damaged_journal_is_an_error(tmp_path: Path) -> None:
    """A file without runs is one, too. So is a line in the middle that is not JSON."""
    journal = tmp_path / "journal.jsonl"
    with pytest.raises(InputError, match=r"No such file or directory; expected the journal\.jsonl"):
        read_journal(tmp_path, spec_of())
    journal.write_text('{"drawn": 1}\n')
    with pytest.raises(InputError, match="found no run"):
        read_journal(journal, spec_of())
    journal.write_text('{"drawn": 1}\n{"run": 1, "wh\n{"drawn": 2}\n')
    with pytest.raises(InputError, match=r"line 2: found .*, expected a JSON object"):
        read_journal(journal, spec_of())


def test_the_command_prints_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run lists them with their reasons. A case that is gone is an error."""
    journal = tmp_path / "journal.jsonl"
    row = {"run": 1, "begun": 1, "why": "search", "reason": "sweep", "says": "kept", "live_s": 1}
    journal.write_text(json.dumps(row | {"plan": ["kill decode 0", "stay 3.00 s"]}) + "\n")
    command = ("replay-journal", str(tmp_path), "--graph", "reference", "--dry-run")
    assert main(command) == EXIT_KEPT
    assert capsys.readouterr().out == "run 1 (search, sweep): kill decode 0; stay 3.00 s\n"
    edited(journal, 0, why="replay 0123abcd")
    assert main(command) != EXIT_KEPT
    said = capsys.readouterr().err
    assert "line 1: found a replay of case 0123abcd, expected a case in" in said

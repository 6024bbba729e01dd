"""The state of a search while it runs: `state.json` in the folder of its results. `graphquake status` and `graphquake abort` read it.

The file names the process of the search, by its pid and the time of its start. A reader can so tell a search that runs from one that was
killed. The file is replaced as a whole, so a reader never sees half of it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from graphquake.harness.processes.procfs import Owner, this_owner
from graphquake.harness.run.status import RunStatus
from graphquake.harness.spec.plan import Plan
from graphquake.machines.findings.finding import Finding
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.run_tally import RunTally
from graphquake.machines.runners.runner import Runner

NAME: Final = "state.json"
# The file is written at most this often, in seconds.
EVERY_S: Final = 0.5
# What the file tells about the run that goes on.
SHOWN: Final = ("phase", "now_s", "step", "sent", "failed")


@dataclass(slots=True)
class LiveState:
    """The state of one search.

    Attributes:
        graph: the name of the graph.
        seed: the seed of the search.
        pid, start: the process of the search; `start` is the time of its start in clock ticks since boot.
        controller: the pid of the controller of pytest-xdist, or 0 without it.
        began: the time of the start, as `time.time()`.
        budget_s: the budget, in seconds. None if it is not limited.
        spent_s: the seconds of it that are spent.
        live: verdict -> number of live runs.
        findings: id of a case -> its status, plan and signature.
        now: the run that goes on: its purpose, its plan, its phase, and the counts of requests. Empty between runs.
        written: the time of this state, as `time.time()`.
        budget_runs: the budget, in live runs. None if it is not limited.
        spent_runs: the runs of it that were begun.
        live_s: the seconds that the live runs took.
        drawn: "run", or the reason why a plan was not run -> number of drawn plans.
        statuses: status -> number of findings.
        slots: the number of runs that may go on side by side.
        slots_in_use: the number of runs that go on now.
        requests: `sent`, `ok` or `failed` -> number of requests.
        faults: the faults so far, see `FaultCount`.
        ended: the reason why the search has ended. Empty while it runs.
    """

    graph: str
    seed: int
    pid: int = 0
    start: int = 0
    controller: int = 0
    began: float = 0.0
    budget_s: float | None = None
    spent_s: float = 0.0
    live: dict[str, int] = field(default_factory=dict)
    findings: dict[str, str] = field(default_factory=dict)
    now: dict[str, Any] = field(default_factory=dict)
    written: float = 0.0
    budget_runs: float | None = None
    spent_runs: int = 0
    live_s: float = 0.0
    drawn: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    slots: int = 1
    slots_in_use: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    ended: str = ""

    def __post_init__(self) -> None:
        if not self.pid:
            owner = this_owner("")
            self.pid, self.start = owner.pid, owner.start
            self.controller = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else 0
            self.began = time.time()

    @property
    def lives(self) -> bool:
        """True if the search still runs. A search that was killed is not alive, although its state has no end."""
        return not self.ended and Owner(self.pid, self.start, "").lives

    @property
    def runs(self) -> int:
        """The number of live runs."""
        return sum(self.live.values())

    def write(self, folder: Path) -> None:
        """Write the file. A folder that can't be written does not end a search."""
        self.written = time.time()
        # `asdict` copies every table, which takes several times as long, and the clients of a run wait meanwhile.
        table = {one.name: getattr(self, one.name) for one in fields(self)}
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            new = folder / f".{NAME}.{os.getpid()}"
            new.write_text(json.dumps(table, ensure_ascii=False) + "\n", encoding="utf-8")
            new.replace(folder / NAME)


def read_state(folder: Path) -> LiveState | None:
    """Read the state of the search in a folder. None if there is none, or if the file is damaged."""
    with suppress(OSError, ValueError, TypeError):
        return LiveState(**json.loads((folder / NAME).read_text(encoding="utf-8")))
    return None


def read_states(results: Path) -> Iterator[tuple[Path, LiveState]]:
    """Yield the folder and the state of each search below a results folder. Damaged files are passed over.

    Args:
        results: the results folder.
    """
    for path in sorted(results.glob(f"**/{NAME}")):
        if (state := read_state(path.parent)) is not None:
            yield path.parent, state


@dataclass(slots=True)
class Sources:
    """The parts of a search that know its numbers.

    Attributes:
        budget: the budget of the search.
        log: the log of the search.
        tally: the counts of requests and faults.
        runner: runs the plans. None until it is open.
        findings: the findings so far.
    """

    budget: Budget
    log: RunLog
    tally: RunTally
    runner: Runner | None = None
    findings: Sequence[Finding] = ()

    def fill(self, state: LiveState) -> None:
        """Enter the present numbers into a state."""
        budget, log, counts = self.budget, self.log, self.tally.counts()
        state.spent_s, state.spent_runs = round(budget.spent_s, 1), budget.begun_runs
        state.live, state.live_s, state.drawn = dict(log.live), log.live_s, dict(log.drawn)
        state.statuses = dict(Counter(finding.case.status for finding in tuple(self.findings)))
        state.slots = 1 if self.runner is None else self.runner.slots
        state.slots_in_use = self.tally.going_on
        state.requests = {"sent": counts.sent, "ok": counts.ok, "failed": counts.failed}
        state.faults = [one.row() for one in counts.faults]


class StateWriter:
    """Keeps the file up to date while a search runs. Its methods may be called in any thread.

    Args:
        folder: the folder of the search's results.
        state: the state at the start of the search.
        sources: the parts of the search that know its numbers.
    """

    def __init__(self, folder: Path, state: LiveState, sources: Sources) -> None:
        self.sources = sources
        self._state = state
        self._folder = folder
        self._written_s = 0.0
        self._lock = threading.Lock()
        self.write()

    def write(self) -> None:
        """Write the file with the present numbers."""
        with self._lock:
            self.sources.fill(self._state)
            self._state.write(self._folder)

    def show(self, plan: Plan, why: str, status: RunStatus) -> None:
        """Enter the state of the run that goes on, and write the file if it is old enough."""
        shown = {name: getattr(status, name) for name in SHOWN}
        self._state.now = {"why": why, "plan": plan.one_line(), **shown}
        now_s = time.monotonic()
        if now_s - self._written_s >= EVERY_S:
            self._written_s = now_s
            self.write()

    def find(self, case: str, line: str) -> None:
        """Enter a finding by the id of its case. A finding that is shrunk later is entered again."""
        self._state.findings[case] = line
        self.write()

    def end(self, why: str) -> None:
        """Enter the end of the search."""
        self._state.ended, self._state.now = why, {}
        self.write()

"""The interface of runners. A runner runs plans within a budget, on as many graphs side by side as there are slots.

The search and the shrinker ask a `Runner` for runs. They do not know about processes or event loops. In tests, a simulated graph takes
the place of `live_runner`. A run is begun with `start`, and its result taken later with `result`. `run` does both.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from graphquake.harness.history.history import History
from graphquake.harness.history.host import Host
from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.run.early_verdict import Enough
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan

# The purpose of the runs of a search. Such a run need not be as thorough as others: a runner may end it before a lease has ended.
SEARCH: Final = "search"


@dataclass(frozen=True, slots=True)
class RunOrder:
    """A run that was asked for. The fields are the arguments of `Runner.start`."""

    plan: Plan
    why: str
    enough: Enough | None
    may_reuse: bool
    patient: bool
    spec: GraphSpec | None


class DisturbedRun(NamedTuple):
    """An earlier run of a plan that other work on the machine disturbed, so that the runner repeated it.

    Attributes:
        verdict: its invalid verdict.
        live_s: the seconds that it took.
    """

    verdict: Verdict
    live_s: float


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of one run of a plan.

    Attributes:
        plan: the plan.
        verdict: the verdict over its history.
        history: the history of the run.
        live_s: the seconds that the run took, with the start of its graph.
        folder: the folder of the run's files, or None if there are none, as for a simulated run.
        used: true if an earlier run had used the graph.
        start_s: the seconds from the launch of the graph to its first right answer.
        disturbed: the runs of this plan that the runner repeated.
    """

    plan: Plan
    verdict: Verdict
    history: History
    live_s: float
    folder: Path | None = None
    used: bool = False
    start_s: float = 0.0
    disturbed: tuple[DisturbedRun, ...] = ()


@dataclass(frozen=True, slots=True)
class Begun:
    """How and why a run was begun, as the journal has it.

    Attributes:
        number: its place in the order in which runs were asked for, from 1. 0 if it is not known.
        reason: why this plan was chosen, in a few words. Empty if it is not known.
        score: the worth of the run for each second (see `novelty`), or None if the choice did not rest on it.
        price_s: the seconds that the run was expected to take, or None if the choice did not rest on them.
        may_reuse: see `Runner.start`.
        patient: see `Runner.start`.
        until: the run could end as soon as it showed this signature. `any` means any violation, and empty means that the run was whole.
    """

    number: int = 0
    reason: str = ""
    score: float | None = None
    price_s: float | None = None
    may_reuse: bool = False
    patient: bool = True
    until: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class PendingRun:
    """A run that was begun, and whose result was not taken yet.

    Attributes:
        plan: the plan.
        done: the future result of the run, or the error that ended it.
        folder: the folder of the run's files, or None for a simulated run.
        begun: how and why it was begun. The pipeline of findings enters it.
    """

    plan: Plan
    done: Future[RunResult]
    folder: Path | None = None
    begun: Begun = field(default_factory=Begun)


class Runner(Protocol):
    """Runs plans on graphs that one graph file describes.

    Attributes:
        spec: the graph.
        host: facts about the machine, and the versions of the graph's software.
        slots: the number of runs that may go on side by side.
        gpus: the number of GPUs that a run takes.
    """

    spec: GraphSpec
    host: Host
    slots: int
    gpus: int

    @property
    def reuses(self) -> bool:
        """True if one graph may serve several runs. This saves time if the graph starts slowly."""
        ...

    def start(
        self,
        plan: Plan,
        why: str,
        *,
        enough: Enough | None = None,
        may_reuse: bool = False,
        patient: bool = True,
        spec: GraphSpec | None = None,
    ) -> PendingRun:
        """Begin to run a plan, at once if a slot is free. A run of a search lets all other runs go first.

        Args:
            plan: the plan.
            why: the purpose of the run, in a word or two.
            enough: called again and again with the history so far, in another thread. The run ends as soon as it returns true.
            may_reuse: if true, the run may take a graph that an earlier run used, provided that the runner `reuses` graphs.
                If false, the graph is fresh.
            patient: if true, the run goes on until every wrong list of the graph is decided, which may take a lease. A search (`SEARCH`)
                waits for that with some plans only.
            spec: the graph under another load and by other bounds, or None for the graph as it is. With it, the graph is always fresh.

        Raises:
            BudgetSpent: if no run fits into the budget any more.
        """
        ...

    def result(self, pending: PendingRun) -> RunResult:
        """Wait until a run is over, and return its result.

        Raises:
            GraphError: if the graph did not start, and no earlier run of this runner had a graph that started.
        """
        ...

    def run(self, plan: Plan, why: str, *, enough: Enough | None = None) -> RunResult:
        """Begin a run and wait until it is over (see `start` and `result`)."""
        ...

    def cancel(self, pending: PendingRun) -> None:
        """End a run whose result is not needed, and remove its files."""
        ...

    def discard(self, result: RunResult) -> None:
        """Give up the files of a finished run: the runner may remove them, or keep them as long as there is room."""
        ...


def last_number(folder: Path) -> int:
    """The highest number of a run in the folder of runs, or 0."""
    return max((int(one.name) for one in folder.glob("*") if one.name.isdecimal()), default=0)

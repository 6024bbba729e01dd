"""Where plans are run: one live run at a time, within a budget.

The judge and the shrinker ask a `Lab` for runs and know nothing of processes or event loops; in tests a simulated graph takes its
place. The budget is in seconds of wall time; a run is begun only if it is likely to end within it.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from graphquake.harness.errors import GraphError
from graphquake.harness.execute import Enough, Progress
from graphquake.harness.history import History
from graphquake.harness.live import describe_host, run_live
from graphquake.harness.plan import Plan
from graphquake.harness.spec import GraphSpec
from graphquake.harness.verdict import Verdict

# Until a run was timed: a start, the phases, and a plan of a few seconds.
RUN_GUESS_S: Final = 15.0


class BudgetSpent(BaseException):
    """No further run fits into the budget."""


@dataclass(slots=True)
class Budget:
    """How long runs may still be begun.

    Attributes:
        total_s: all of it; infinite if there is no bound.
        begun_s: `time.monotonic()` when it began to run.
    """

    total_s: float
    begun_s: float = field(default_factory=time.monotonic)

    @property
    def spent_s(self) -> float:
        """What is gone."""
        return time.monotonic() - self.begun_s

    @property
    def left_s(self) -> float:
        """What is left; never negative."""
        return max(0.0, self.total_s - self.spent_s)

    def share(self, of: float) -> Budget:
        """A budget of its own with that share of what is left."""
        return Budget(self.left_s * of)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A plan was run once.

    Attributes:
        folder: where the run's files are; None if nothing was kept (a simulated run).
    """

    plan: Plan
    verdict: Verdict
    history: History
    live_s: float
    folder: Path | None = None


class Lab(Protocol):
    """Runs plans."""

    spec: GraphSpec
    host: dict[str, str]

    def run(self, plan: Plan, why: str, *, enough: Enough | None = None) -> Outcome:
        """Run a plan once, on a fresh graph.

        Args:
            why: what this run is for, in a word or two.
            enough: asked while it runs whether the history so far is enough.

        Raises:
            BudgetSpent: if no run fits into the budget any more.
        """
        ...

    def discard(self, outcome: Outcome) -> None:
        """Nobody needs the files of that run."""
        ...


class LiveLab:
    """The lab that launches real graphs.

    Args:
        spec: the graph.
        folder: where the folders of the runs go.
        budget: how long it may go on.
        watch: is told how a run stands, several times a second.
        keep_all: keep the folders of all broken and invalid runs, not only those of findings.
    """

    def __init__(
        self,
        spec: GraphSpec,
        folder: Path,
        budget: Budget,
        *,
        watch: Callable[[Plan, str, Progress], None] | None = None,
        keep_all: bool = False,
    ) -> None:
        self.spec = spec
        self.budget = budget
        self.host: dict[str, str] = {}
        self.live_s: list[float] = []
        self.starts_s: list[float] = []
        self._folder = folder
        self._watch = watch
        self._keep_all = keep_all
        self._number = 0
        self._runner: asyncio.Runner

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner(loop_factory=_new_loop).__enter__()
        try:
            self.host = self._runner.run(describe_host(self.spec))
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.close()

    @property
    def run_s(self) -> float:
        """What a run is likely to take."""
        return statistics.median(self.live_s) if self.live_s else RUN_GUESS_S

    def run(self, plan: Plan, why: str, *, enough: Enough | None = None) -> Outcome:
        """Run a plan once, on a fresh graph; see `Lab.run`.

        A graph that does not come to serve makes the run invalid, unless none ever did: then the `GraphError` is the user's.
        """
        if (self.live_s and self.budget.left_s < self.run_s) or self.budget.left_s <= 0:
            raise BudgetSpent
        self._number += 1
        folder = self._folder / f"{self._number:04}"
        watch = self._watch
        begun_s = time.monotonic()
        try:
            run = self._runner.run(
                run_live(
                    self.spec,
                    plan,
                    folder,
                    watch=None if watch is None else lambda progress: watch(plan, why, progress),
                    enough=enough,
                    host=self.host,
                )
            )
        except GraphError as error:
            if not self.live_s:
                raise
            verdict = Verdict("invalid", causes=(str(error).splitlines()[0],))
            spent_s = time.monotonic() - begun_s
            return Outcome(plan, verdict, History(self.spec, plan), spent_s, folder)
        self.live_s.append(run.live_s)
        self.starts_s.append(run.start_s)
        return Outcome(plan, run.verdict, run.history, run.live_s, folder)

    def discard(self, outcome: Outcome) -> None:
        """Remove a run's folder, unless it shows something and all such are kept."""
        shows = outcome.verdict.says != "kept"
        if outcome.folder is not None and not (shows and self._keep_all):
            shutil.rmtree(outcome.folder, ignore_errors=True)


def _new_loop() -> asyncio.AbstractEventLoop:
    """A uvloop where there is one: it costs the clients a sixth less CPU a request."""
    try:
        import uvloop  # noqa: PLC0415 - not there on every platform
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()

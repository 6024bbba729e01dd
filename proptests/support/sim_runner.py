"""A simulated runner: its runs take no time, and its graph has known bugs."""

from __future__ import annotations

import random
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Final

from graphquake.harness.history.events import Invalidated
from graphquake.harness.history.host import Host
from graphquake.harness.history.request import (
    Outcome,
)
from graphquake.harness.promises.judgement import judge
from graphquake.harness.run.early_verdict import Enough
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Kill, Plan, Respawn, Terminate, Wait
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.runners.runner import PendingRun, RunResult

from support.embedding import complete_at
from support.made import Made, spec_of

RUN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Bug:
    """A known bug. After a plan that contains `needs`, one request ends with `outcome` in a share of the runs.

    Attributes:
        needs: the steps that trigger it.
        detail: the detail of that request.
        rate: the share of the runs in which it shows, 0 to 1.
        outcome: the outcome of that request.
        after_s: how long after the last needed step the request is sent.
    """

    needs: Plan
    detail: str
    rate: float = 1.0
    outcome: Outcome = Outcome.WRONG
    after_s: float = 0.5


@dataclass(slots=True)
class SimRunner:
    """A `graphquake.machines.runners.runner.Runner` whose runs take no time.

    Attributes:
        runs_max: the budget, in runs.
        slots: how many runs are begun before the first of them is awaited.
        invalid: the share of invalid runs.
        every_s: the time between two requests after the plan.
        reuses: whether a run that may reuse a graph is reported as a run on a used graph.
        asked: the purpose of each run, and whether it should wait until every wrong list is decided.
    """

    bugs: list[Bug]
    seed: int = 0
    runs_max: int = 10_000
    invalid: float = 0.0
    slots: int = 1
    gpus: int = 0
    every_s: float = 0.5
    reuses: bool = False
    spec: GraphSpec = field(default_factory=spec_of)
    host: Host = field(default_factory=lambda: Host(cores=2))
    runs: list[Plan] = field(default_factory=list)
    asked: list[tuple[str, bool]] = field(default_factory=list)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

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
        """Make one simulated run. It has ended when this returns."""
        del enough, spec
        self.asked.append((why, patient))
        done: Future[RunResult] = Future()
        done.set_result(replace(self._outcome(plan), used=may_reuse and self.reuses))
        return PendingRun(plan, done)

    def result(self, pending: PendingRun) -> RunResult:
        """Return the result of a run."""
        return pending.done.result()

    def run(self, plan: Plan, why: str, *, enough: Enough | None = None) -> RunResult:
        """Make one simulated run and return its result."""
        return self.result(self.start(plan, why, enough=enough))

    def cancel(self, pending: PendingRun) -> None:
        """It has no effect, because the run has already ended."""

    def _outcome(self, plan: Plan) -> RunResult:
        if len(self.runs) >= self.runs_max:
            raise BudgetSpent
        self.runs.append(plan)
        made = Made(self.spec, plan).steady(0.0, 1.0)
        at_s, done_s = 1.5, {}
        for number, step in enumerate(plan.steps):
            at_s += step.for_s if isinstance(step, Wait) else 0.01
            made.step(str(step), at_s, number=number)
            if isinstance(step, Respawn):
                made.spawn(f"{step.role} {step.index}", at_s, ready_s=at_s + 0.2)
            if isinstance(step, Terminate):
                made.dies(f"{step.role} {step.index}", at_s, aimed=True)
            done_s[number] = at_s
        dead = {(s.role, s.index) for s in plan.steps if isinstance(s, Kill | Terminate)}
        for role, index in sorted(dead):
            made.spawn(f"{role} {index}", at_s + 0.1, ready_s=at_s + 0.3)
        made.phase("heal", at_s + 0.1).phase("recover", at_s + 0.1).steady(
            at_s + 1.0, at_s + 12.0, every_s=self.every_s
        )
        for bug in self.bugs:
            last = complete_at(bug.needs, plan)
            if last is not None and self._random.random() < bug.rate:
                sent_s = done_s.get(last, at_s) + bug.after_s
                made.ask(sent_s, outcome=bug.outcome, detail=bug.detail)
        if self._random.random() < self.invalid:
            made.events.append(Invalidated(0.0, "simulated"))
        history = made.history()
        return RunResult(plan, judge(history), history, RUN_S)

    def discard(self, result: RunResult) -> None:
        """It has no effect, because a simulated run has no files."""

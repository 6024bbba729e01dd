"""Speculative execution of a shrink: with several slots, run candidates before the shrinker asks for them.

The shrinker is a pure function of its answers. So its next questions are found by running it again, with the answers so far and a guess for
each missing answer. The most likely questions are begun, as many as there are free slots. The real shrinker does not know about it. It asks
one question after the other, and gets the runs of each plan in the order in which they were begun.
So the minimal plan and its evidence follow from the runs alone, and do not depend on which of them was faster.

A wrong guess costs a run that is not needed. The runner counts it like any other. When the shrink is over, the runs that still go on are
cancelled.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from graphquake.harness.spec.plan import Plan
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.shrinking.result import Shrunk
from graphquake.machines.shrinking.trials import OnTrial, RunPlan, Trial

# A guess that is less likely than this is not worth a run. If both answers are equally likely, that is five questions ahead.
WORTH_A_RUN: Final = 0.03
# The number of guesses that are tried for each free slot. Each of them runs the shrinker once, without live runs.
GUESSES: Final = 4

BROKEN: Final = Trial("broken")
KEPT: Final = Trial("kept")

Shrinker = Callable[[RunPlan, OnTrial], Shrunk]
T = TypeVar("T")


class CandidateRunner(Protocol[T]):
    """Begins runs of candidates and takes their results."""

    @property
    def slots(self) -> int:
        """The number of runs that may go on side by side."""
        ...

    def start(self, plan: Plan) -> T:
        """Begin a run.

        Raises:
            BudgetSpent: if no run is left.
        """
        ...

    def result(self, run: T) -> Trial:
        """Wait for a run."""
        ...

    def is_done(self, run: T) -> bool:
        """True if the slot of a run is free again."""
        ...

    def cancel(self, run: T) -> None:
        """End a run that is not needed."""
        ...


def shrink_ahead(shrinker: Shrinker, runner: CandidateRunner[T]) -> Shrunk:
    """Let a shrinker run, and begin runs before it asks for them.

    Args:
        shrinker: `shrink` with everything but `run` and `on_trial`.
        runner: runs the candidates. With one slot, none is begun early.

    Returns:
        The result of the shrinker.
    """
    ahead = _Ahead(shrinker, runner)
    try:
        return shrinker(ahead.answer, lambda *_: None)
    finally:
        ahead.drop()


class _Question(NamedTuple):
    plan: Plan
    likely: float


class _Asked(BaseException):
    """Ends a shrinker that ran only to tell its next question."""


@dataclass(slots=True)
class _Ahead(Generic[T]):
    shrinker: Shrinker
    runner: CandidateRunner[T]
    answers: list[Trial] = field(default_factory=list)
    begun: defaultdict[Plan, deque[T]] = field(default_factory=lambda: defaultdict(deque))

    def answer(self, plan: Plan) -> Trial:
        """The next run of a plan."""
        if not self.begun[plan]:
            self.begun[plan].append(self.runner.start(plan))
        if self.runner.slots > 1:
            self._begin_likely()
        trial = self.runner.result(self.begun[plan].popleft())
        self.answers.append(trial)
        return trial

    def drop(self) -> None:
        """Cancel the runs that were not asked for."""
        for runs in self.begun.values():
            while runs:
                self.runner.cancel(runs.popleft())

    def _begin_likely(self) -> None:
        """Begin the most likely questions in the free slots."""
        running = sum(not self.runner.is_done(run) for runs in self.begun.values() for run in runs)
        free = self.runner.slots - running
        if free <= 0:
            return
        for asked in itertools.islice(self._guesses(), GUESSES * free):
            missing = [plan for plan, count in asked.items() if len(self.begun[plan]) < count]
            for plan in missing[:free]:
                try:
                    self.begun[plan].append(self.runner.start(plan))
                except BudgetSpent:
                    return
                free -= 1
            if not free:
                return

    def _guesses(self) -> Iterator[Counter[Plan]]:
        """For each guess, the most likely first: the number of runs of each plan that the shrinker asks for."""
        number = itertools.count()
        guesses = [(-1.0, next(number), list[Trial](), Counter[Plan]())]
        while guesses:
            chance, _, guessed, asked = heapq.heappop(guesses)
            question = self._asks_after(guessed)
            if question is None:
                continue
            asked = asked + Counter([question.plan])
            yield asked
            guesses_of = ((BROKEN, question.likely), (KEPT, 1.0 - question.likely))
            for trial, share in guesses_of:
                if -chance * share >= WORTH_A_RUN:
                    more = [*guessed, trial]
                    heapq.heappush(guesses, (chance * share, next(number), more, asked))

    def _asks_after(self, guessed: list[Trial]) -> _Question | None:
        """The question that the shrinker asks after the answers so far and some guessed answers, or None if it is done."""
        known = iter([*self.answers, *guessed])
        likely = 0.0

        def remember(_reason: str, _plan: Plan, chance: float) -> None:
            nonlocal likely
            likely = chance

        found: list[_Question] = []

        def replay(plan: Plan) -> Trial:
            trial = next(known, None)
            if trial is None:
                found.append(_Question(plan, likely))
                raise _Asked
            return trial

        try:
            self.shrinker(replay, remember)
        except _Asked:
            return found[0]
        return None

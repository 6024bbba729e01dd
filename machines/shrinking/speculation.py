"""Speculative execution of a shrink: with several slots, run candidates before the shrinker asks for them.

A question of the shrinker is a plan to run, and the answer is the trial of that run. The shrinker's questions follow from the answers
alone. So its next questions are found by running the shrinker again, with the answers so far and a guess for each missing answer. For each
free slot, the run of one likely question is begun. The real shrinker does not know about speculation. It asks
one question after the other, and gets the runs of each plan in the order in which they were begun.
So the minimal plan and its evidence follow from the runs alone, and do not depend on which run was faster.

A question also says whether a used graph will do. A run on a fresh graph answers both kinds, a run on a used graph only one of them.

A wrong guess costs a run that is not needed. The budget counts such a run like any other. When the shrink is over, the runs in progress
are cancelled.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from graphquake.harness.spec.plan import Plan
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.shrinking.result import Shrunk
from graphquake.machines.shrinking.trials import OnTrial, RunPlan, Trial

# A series of guessed answers that is less likely than this is not worth a run. If both answers are always equally likely, the shrinker
# looks five questions ahead.
WORTH_A_RUN: Final = 0.03
# The number of series of guesses that are tried for each free slot. For each series, the shrinker is run once, without live runs.
GUESSES: Final = 4

BROKEN: Final = Trial("broken")
KEPT: Final = Trial("kept")

# The last argument makes runs on used graphs. It is None if every run needs a fresh graph.
Shrinker = Callable[[RunPlan, OnTrial, RunPlan | None], Shrunk]
T = TypeVar("T")


class CandidateRunner(Protocol[T]):
    """Begins runs of candidates and takes their results."""

    @property
    def slots(self) -> int:
        """The number of runs that may go on side by side."""
        ...

    @property
    def reuses(self) -> bool:
        """True if a run may take a graph that an earlier run used."""
        ...

    def start(self, plan: Plan, *, may_reuse: bool = False) -> T:
        """Begin a run of a candidate. A fresh graph runs it, unless `may_reuse` is true and there is a used graph.

        Raises:
            BudgetSpent: if no run is left.
        """
        ...

    def result(self, run: T) -> Trial:
        """Wait until a run is over, and return its trial."""
        ...

    def is_done(self, run: T) -> bool:
        """True if a run is over, so that its slot is free again."""
        ...

    def cancel(self, run: T) -> None:
        """End a run whose result is not needed."""
        ...


def shrink_ahead(
    shrinker: Shrinker, runner: CandidateRunner[T], on_trial: OnTrial = lambda *_: None
) -> Shrunk:
    """Run a shrinker, and begin live runs before the shrinker asks for them.

    Args:
        shrinker: `shrink` with all arguments bound except `run`, `on_trial` and `reuse`.
        runner: runs the candidates. With one slot, no run is begun early.
        on_trial: called before each run for which the shrinker asks, not before those that are begun early.

    Returns:
        The result of the shrinker.
    """
    ahead = _Ahead(shrinker, runner, reuses=runner.reuses)
    try:
        return shrinker(ahead.on_fresh, on_trial, ahead.on_used if ahead.reuses else None)
    finally:
        ahead.drop()


class _Wanted(NamedTuple):
    """A plan to run, and whether its graph may be a used one."""

    plan: Plan
    may_reuse: bool


class _Question(NamedTuple):
    """A run that the shrinker asks for, and the probability that the run breaks the promise."""

    wanted: _Wanted
    likely: float


class _Asked(BaseException):
    """Raised to end a shrinker that was run only to learn its next question."""


@dataclass(slots=True)
class _Ahead(Generic[T]):
    """The speculation of one shrink.

    Attributes:
        shrinker: the shrinker, which is run again for each guess.
        runner: runs the candidates.
        reuses: true if the shrinker may ask for runs on used graphs. This stays as it was when the shrink began.
        answers: the trials that the real shrinker got so far, in order.
        begun: for each plan and kind of graph, the runs that were begun and not yet asked for, the oldest first.
    """

    shrinker: Shrinker
    runner: CandidateRunner[T]
    reuses: bool
    answers: list[Trial] = field(default_factory=list)
    begun: defaultdict[_Wanted, deque[T]] = field(default_factory=lambda: defaultdict(deque))

    def on_fresh(self, plan: Plan) -> Trial:
        """Answer a question of the real shrinker that needs a fresh graph."""
        return self._answer(_Wanted(plan, may_reuse=False))

    def on_used(self, plan: Plan) -> Trial:
        """Answer a question of the real shrinker for which a used graph will do."""
        return self._answer(_Wanted(plan, may_reuse=True))

    def _answer(self, wanted: _Wanted) -> Trial:
        """Return the trial of the next run that answers a question. Begin likely runs before waiting for it."""
        # A run that was begun on a fresh graph answers also a question for which a used graph would do.
        source = next(
            (one for one in (wanted, _Wanted(wanted.plan, False)) if self.begun[one]), wanted
        )
        if not self.begun[source]:
            self._begin(source)
        if self.runner.slots > 1:
            self._begin_likely()
        trial = self.runner.result(self.begun[source].popleft())
        self.answers.append(trial)
        return trial

    def _begin(self, wanted: _Wanted) -> None:
        run = self.runner.start(wanted.plan, may_reuse=wanted.may_reuse)
        self.begun[wanted].append(run)

    def drop(self) -> None:
        """Cancel the runs that the real shrinker did not ask for."""
        for runs in self.begun.values():
            while runs:
                self.runner.cancel(runs.popleft())

    def _begin_likely(self) -> None:
        """Begin the runs of the most likely questions in the free slots."""
        running = sum(not self.runner.is_done(run) for runs in self.begun.values() for run in runs)
        free = self.runner.slots - running
        if free <= 0:
            return
        for asked in itertools.islice(self._guesses(), GUESSES * free):
            missing = [one for one, count in asked.items() if len(self.begun[one]) < count]
            for wanted in missing[:free]:
                try:
                    self._begin(wanted)
                except BudgetSpent:
                    return
                free -= 1
            if not free:
                return

    def _guesses(self) -> Iterator[Counter[_Wanted]]:
        """Yield the runs that the shrinker asks for if some guesses are right, as a number for each plan and kind of graph.

        The most likely series of guesses comes first. It is the empty one.
        """
        number = itertools.count()
        guesses = [(-1.0, next(number), list[Trial](), Counter[_Wanted]())]
        while guesses:
            chance, _, guessed, asked = heapq.heappop(guesses)
            question = self._asks_after(guessed)
            if question is None:
                continue
            asked = asked + Counter([question.wanted])
            yield asked
            guesses_of = ((BROKEN, question.likely), (KEPT, 1.0 - question.likely))
            for trial, share in guesses_of:
                if -chance * share >= WORTH_A_RUN:
                    more = [*guessed, replace(trial, used=question.wanted.may_reuse)]
                    heapq.heappush(guesses, (chance * share, next(number), more, asked))

    def _asks_after(self, guessed: list[Trial]) -> _Question | None:
        """The question that the shrinker asks after the answers so far and the guessed answers, or None if the shrink is over."""
        known = iter([*self.answers, *guessed])
        likely = 0.0

        def remember(_reason: str, _plan: Plan, chance: float) -> None:
            nonlocal likely
            likely = chance

        found: list[_Question] = []

        def replay(plan: Plan, *, may_reuse: bool = False) -> Trial:
            trial = next(known, None)
            if trial is None:
                found.append(_Question(_Wanted(plan, may_reuse), likely))
                raise _Asked
            return trial

        on_used = partial(replay, may_reuse=True) if self.reuses else None
        try:
            self.shrinker(replay, remember, on_used)
        except _Asked:
            return found[0]
        return None

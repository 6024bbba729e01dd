"""Sort violations into those that a known case explains and those that no case explains.

An `Excuses` is a snapshot: the excusing cases as they stood when it was taken. It never changes, so another thread may use it, and so
the runs of one shrink all judge by the same cases. A case excuses a violation, never a plan (see `cases.corpus`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from graphquake.harness.history.history import History
from graphquake.harness.promises.judgement import judge
from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Violation
from graphquake.harness.spec.graph import GraphSpec
from graphquake.machines.cases.case import EXCUSING, Case
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.runners.runner import RunResult


class Sorted(NamedTuple):
    """The violations of one run.

    Attributes:
        unexplained: the violations that no case explains, in their order.
        explained_by: the sorted ids of the cases that explain the others.
    """

    unexplained: list[Violation]
    explained_by: list[str]


@dataclass(frozen=True, slots=True)
class Excuses:
    """The cases that excuse violations, as they stood at one moment."""

    cases: tuple[Case, ...]

    def sort(self, violations: Iterable[Violation], history: History) -> Sorted:
        """Sort the violations of a history. If several cases explain one violation, the first case counts."""
        unexplained, explained_by = [], set()
        for violation in violations:
            case = next((one for one in self.cases if one.explains(violation, history)), None)
            if case is None:
                unexplained.append(violation)
            else:
                explained_by.add(case.id)
        return Sorted(unexplained, sorted(explained_by))

    def unexplained(self, result: RunResult) -> list[Violation]:
        """The violations of a run that no case explains."""
        return self.sort(result.verdict.violations, result.history).unexplained


def excuses_of(corpus: Corpus, spec: GraphSpec, except_for: Iterable[str] = ()) -> Excuses:
    """Take a snapshot of a graph's excusing cases.

    Args:
        corpus: all cases.
        spec: the graph.
        except_for: ids of cases that do not excuse here, for example a case that is being shrunk further.
    """
    ignored = set(except_for)
    return Excuses(
        tuple(
            case for case in corpus.of(spec) if case.status in EXCUSING and case.id not in ignored
        )
    )


@dataclass(frozen=True, slots=True)
class ShowsWanted:
    """Tells during a run whether its history already shows the violation that a shrink looks for.

    The thread of the live runs calls it while the thread of the shrinker waits. It holds only immutable values, so it needs no lock.

    Attributes:
        excuses: the known cases.
        wanted: the signature that the shrink follows, or None if any unexplained violation counts.
    """

    excuses: Excuses
    wanted: Signature | None

    def __call__(self, history: History) -> bool:
        """True if the history so far shows the wanted violation. See `harness.run.early_verdict.Enough`."""
        unexplained = self.excuses.sort(judge(history).violations, history).unexplained
        return any(self.wanted in (None, violation.signature) for violation in unexplained)

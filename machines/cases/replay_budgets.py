"""The budgets of the replays with which a search begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

from graphquake.machines.cases.case import Case
from graphquake.machines.runners.budget import Budget

# The share of the remaining budget that the replay of one case may take.
REPLAY_SHARE: Final = 0.5
# The share of it for the replays of all known cases together. They only tell whether a bug is fixed.
KNOWN_SHARE: Final = 0.2


def replay_budgets(
    cases: Iterable[Case], whole: Budget, *, strict_known: bool = False
) -> Iterator[tuple[Case, Callable[[], Budget]]]:
    """Yield each case with a function that begins the budget of its replay. Known cases come last, and share a smaller budget.

    Call the function when the replay has its turn: the budget is a share of the rest at that moment. The search counts the runs itself.

    Args:
        cases: the cases.
        whole: the budget of the search.
        strict_known: if true, a known case that is fixed fails the search. Then known cases are treated as the others.
    """
    later = []
    for case in cases:
        if case.status == "known" and not strict_known:
            later.append(case)
        else:
            yield case, partial(_share, whole, REPLAY_SHARE)
    shared: list[Budget] = []

    def of_known() -> Budget:
        if not shared:
            known = _share(whole, KNOWN_SHARE)
            # Each of them gets a run, if there is time.
            known.total_runs = min(whole.left_runs, max(known.total_runs, len(later)))
            shared.append(known)
        return shared[0].share(1.0)

    for case in later:
        yield case, of_known


def _share(whole: Budget, share: float) -> Budget:
    """Return a new budget with a share of the rest of another one. The other budget does not count its runs."""
    return Budget(whole.left_s * share, whole.left_runs * share)

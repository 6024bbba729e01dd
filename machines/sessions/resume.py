"""Go on with a search that was killed: with its seed, its runs and its budget (`--chaos-resume`).

The seed draws the same plans again. Those that were kept are not run again. A plan that broke its promise is run again, unless its case was
saved: then the case explains it, as in any search.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from graphquake.harness.errors import InputError
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, read_plan
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.run_log import run_rows
from graphquake.machines.runners.runner import SEARCH
from graphquake.machines.sessions.live_state import LiveState, read_state


class Earlier(NamedTuple):
    """The part of a search that was made before.

    Attributes:
        state: its last state.
        kept: the plans of its search that kept all promises.
        runs: the number of its live runs, as its journal has them.
    """

    state: LiveState
    kept: list[Plan]
    runs: int

    def spend(self, budget: Budget) -> None:
        """Take its seconds and its runs from a budget."""
        budget.begun_s -= self.state.spent_s
        budget.begun_runs += self.runs


def read_earlier(
    folder: Path, journal: Path, spec: GraphSpec, seed: int | None = None
) -> Earlier | None:
    """Read the earlier part of a search from its folder. None if no search began there.

    Args:
        folder: the folder of the search's results.
        journal: its journal.
        spec: the graph.
        seed: the seed that the user gave, if any.

    Raises:
        InputError: if the search still runs, or has another seed than the one that was given.
    """
    state = read_state(folder)
    if state is None:
        return None
    if state.lives:
        raise InputError(
            f"--chaos-resume: the search in {folder} still runs, as pid {state.pid}; expected one that has ended"
        )
    if seed not in (None, state.seed):
        raise InputError(
            f"--hypothesis-seed: found {seed}, but the search in {folder} has seed {state.seed}; leave the option out to go on with it"
        )
    kept: list[Plan] = []
    rows = list(run_rows(journal))
    for row in rows:
        if row["why"] == SEARCH and row["says"] == "kept":
            # The graph file may have changed meanwhile. A plan that it does not know any more is not drawn either.
            with suppress(InputError):
                kept.append(read_plan(str(journal), "\n".join(row["plan"]), spec.own_steps))
    return Earlier(state, kept, len(rows))

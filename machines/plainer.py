"""Does a plainer plan fail in the same way? What removal alone never finds, since it is no part of the plan that was drawn.

A bug that any death of a worker shows may be found with the deaths of two others, from which neither can be left out; a bug that takes
thirty requests at once, with two bursts that make so many together. So a minimal plan of several steps is held against the plainest plans
that there are, which are few (`PlanMachine.plainest`), with one run each. One that breaks the promise in the same way is shrunk and
confirmed like any other, and stands for the finding if it breaks about as often.

It may be another bug with the same signature: then that one is the finding, and the first one, which no case explains, comes next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from graphquake.harness.plan import Plan
from graphquake.machines.embedding import embeds
from graphquake.machines.ledger import OutOfBudget, Progress, Run, Trial, Tried
from graphquake.machines.shrunk import Shrunk

# A plan that breaks less often than this share of the other's runs stands for something else.
ABOUT_AS_OFTEN: Final = 0.5
REASON: Final = "is a plainer plan enough"
UNLIKELY: Final = 0.05


def plainer(
    shrunk: Shrunk,
    plainest: Sequence[Plan],
    shrink_from: Callable[[Plan, Trial], Shrunk],
    run: Run,
    progress: Progress | None = None,
) -> Shrunk:
    """The first of the plainest plans that fails as a minimal plan of several steps does, shrunk; else what was given.

    Like `shrink`, it follows from the answers alone.

    Args:
        shrunk: a finished shrink.
        plainest: plans of one step each, the plainest first.
        shrink_from: shrinks a plan that was seen to fail, from what that run said.
        run: makes one live run of a plan on a fresh graph; raises `OutOfBudget` if there is none left.
        progress: told before each.

    Returns:
        The one or the other, with the runs of both.
    """
    if not (shrunk.confirmed and shrunk.complete) or len(shrunk.plan.steps) == 1:
        return shrunk
    found, tried = shrunk, list(shrunk.journal)
    for one in plainest:
        plan = replace(one, heal=shrunk.plan.heal)
        if embeds(plan, shrunk.plan):
            # It is a part of it, and so was tried while steps were left out.
            continue
        if progress is not None:
            progress(REASON, plan, UNLIKELY)
        try:
            trial = run(plan)
        except OutOfBudget:
            break
        tried.append(Tried(plan, trial, REASON))
        if trial.says == "broken":
            other = shrink_from(plan, trial)
            tried += other.journal
            if _stands_for(other, shrunk):
                found = other
                break
    return replace(found, live_runs=len(tried), journal=tuple(tried))


def _stands_for(other: Shrunk, shrunk: Shrunk) -> bool:
    if not (other.confirmed and other.complete and other.runs):
        return False
    return other.broke / other.runs >= ABOUT_AS_OFTEN * shrunk.broke / shrunk.runs

"""Shrink a failing plan to a minimal plan that fails in the same way, with as few live runs as possible.

A live run costs ten seconds, so a shrink is about the choice of the next run. In this order:

1. *Cut* the plan where the violation began: later steps did not cause it. *Reproduce* the failure on fresh graphs.
2. *Leave out steps* (`leave_out`): the removals that promise the most (`probdd`), then pairs of steps that can only go together. If several
   steps are left, hold them against the plainest plans, one run each. A bug that any death of a worker shows may have been met as the
   deaths of two others. Removal never finds the plainer plan, because it is not a part of the drawn one.
3. *Lower numbers* (`lower_numbers`): waits, bursts and the length of the run, by bisection.
4. *Confirm* (`confirm`) the minimal plan in fresh runs. If it breaks far less often than the plan before it, step back to that plan.
5. *Controls*: run the minimal plan without its faults. If it breaks, load alone breaks the promise.
6. Leave out each single step once more, until enough kept runs show that the plan is minimal. Then try other replicas.

**Noise is one-sided.** A run that breaks the promise is proof and accepts a candidate at once. A run that keeps it is a hint. The rate seen
so far says how many of them reject (`stats`). So for steps, too few runs can only leave a step too many, and the last check looks for
it again. For numbers it is the other way round, so they have another test.

**Used graphs.** If a graph starts slowly, a graph that healed clean is used again for candidates. An earlier run may have left unseen
traces
in it. So runs on used graphs alone do not reject a plan. A plan that broke only on used graphs must break on a fresh one before it is
confirmed. If it does not, the shrink steps back and uses no graph again.

The shrinker knows neither graphs nor Hypothesis. It asks a function for runs, and its questions follow from the answers alone.
Whatever ends it early, it returns the smallest plan that it has seen fail.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.shrinking.confirm import (
    confirm,
    control_plan,
    run_controls,
    stands_on_fresh_graphs,
    try_other_replicas,
)
from graphquake.machines.shrinking.leave_out import leave_out_singles, leave_out_steps, try_plainer
from graphquake.machines.shrinking.lower_numbers import lower_numbers, simplify_steps
from graphquake.machines.shrinking.probdd import prior
from graphquake.machines.shrinking.result import Shrunk, thresholds, without_each
from graphquake.machines.shrinking.state import LIKELY, OFTEN, REPRODUCE_MAX, ShrinkState
from graphquake.machines.shrinking.trials import OnTrial, RunPlan, Trial, TrialLog


def shrink(
    spec: GraphSpec,
    plan: Plan,
    first: Trial,
    run: RunPlan,
    *,
    reuse: RunPlan | None = None,
    on_trial: OnTrial | None = None,
    plainest: Sequence[Plan] = (),
    confirmations: int = 10,
    controls: int = 3,
) -> Shrunk:
    """Shrink a plan that was seen to fail.

    Args:
        spec: the graph. Only plans that are possible in its model are run.
        plan: the plan that failed.
        first: the trial of that failure. It does not count as a fresh run, because the plan was chosen for it.
        run: makes one live run of a plan on a fresh graph. It raises `BudgetSpent` if no run is left.
        reuse: makes one on a used graph if there is one (see "Used graphs" above).
        on_trial: called before each live run with its reason, its plan, and the probability that it breaks.
        plainest: plans of one step that may stand for a plan of several, the plainest first.
        confirmations: the number of fresh runs of the minimal plan, those included that were made on the way.
        controls: the number of runs of the minimal plan without its faults.

    Returns:
        The minimal plan with its evidence. It embeds in `plan`, unless it is one of the plainest plans.
    """
    state = ShrinkState(
        spec, plan, TrialLog(run, on_trial, reuse), plainest, confirmations, controls
    )
    any_replica = None
    try:
        if _reproduce(state, first):
            _find_minimal_plan(state)
            any_replica = try_other_replicas(state)
    except BudgetSpent:
        return _result(state, any_replica=any_replica, complete=False)
    return _result(state, any_replica=any_replica, complete=True)


def _reproduce(state: ShrinkState, first: Trial) -> bool:
    """Run the cut plan, then the whole plan, until a fresh run breaks. False if none does."""
    whole = prior(state.spec, state.original, first.blame)
    cut, uncut = whole.until(first.last_step), whole.with_waits_joined()
    half = REPRODUCE_MAX // 2
    tries = [cut] * half + [uncut] * half if cut != uncut else [cut] * REPRODUCE_MAX
    for one in tries:
        if one.plan in state.log.aside:
            continue
        if state.log.once_more(one.plan, "reproduce", LIKELY).kind == "broken":
            state.accept(one)
            return True
    return False


def _find_minimal_plan(state: ShrinkState) -> None:
    leave_out_steps(state)
    try_plainer(state)
    if state.rate() < OFTEN:
        # With a step too many, all confirming runs would be wasted.
        while leave_out_singles(state):
            leave_out_steps(state)
    simplify_steps(state)
    lower_numbers(state)
    while True:
        if not stands_on_fresh_graphs(state):
            leave_out_steps(state)
            lower_numbers(state)
        confirm(state)
        run_controls(state)
        # Only now is the rate of this plan known, and with it the number of kept runs that are enough.
        if not leave_out_singles(state):
            return
        leave_out_steps(state)


def _result(state: ShrinkState, *, any_replica: bool | None, complete: bool) -> Shrunk:
    """Everything that is known now."""
    plan, log = state.minimal_plan, state.log
    count, control = log.count(plan), log.count(control_plan(state))
    return Shrunk(
        plan=plan,
        broke=count.broke,
        runs=count.runs,
        control_broke=control.ever_broke,
        control_runs=control.ever_broke + control.ever_kept,
        needed=tuple(without_each(state.spec, plan, log)),
        thresholds=tuple(thresholds(plan, log)),
        any_replica=any_replica,
        live_runs=len(log.all),
        complete=complete and plan not in log.aside,
        confirmed=bool(state.held),
        journal=tuple(log.all),
    )

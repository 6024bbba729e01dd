"""Shrink a failing plan to a minimal plan that fails in the same way, with as few live runs as possible.

A live run takes about ten seconds, so the choice of the next run matters most. The steps of a shrink:

1. *Cut* the plan where the violation began: later steps did not cause it. *Reproduce* the failure on fresh graphs.
2. *Leave out steps* (`leave_out`): the best removals (`probdd`), then pairs of steps that can only be left out together. If several
   steps are left, run each of the plainest plans, too. Example: a bug needs the death of any worker, but it was found with the deaths
   of two other replicas. Leaving out steps never leads to the plan that kills one worker, because that kill is not in the drawn plan.
3. *Lower numbers* (`lower_numbers`): waits, bursts and the length of the run, by bisection.
4. *Confirm* (`confirm`) the minimal plan on fresh graphs. If it breaks far less often than the plans before it, step back.
5. *Controls*: run the minimal plan without its faults. If such a run breaks the promise, load alone is enough to break it.
6. Leave out each single step once more, until enough kept runs show that the plan is minimal. Then try other replicas.

**Noise is one-sided.** A run that breaks the promise is proof. It accepts a candidate at once. A run that keeps the promise is only a hint.
The failure rate so far determines how many kept runs reject a candidate (`stats`). So if steps are left out, too few runs can only leave
an unnecessary step in the plan, and the last check tries that step again. A number is different: one broken run by chance could accept a
value that is too low. So numbers have a test of their own.

**Used graphs.** If a graph starts slowly, it is healed after a run, and used again for the next candidate. An earlier run may have left
unseen traces in it. So runs on used graphs alone do not reject a plan. A plan that broke only on used graphs must break on a fresh graph
before it is confirmed. If it does not, the shrink steps back to an earlier plan, and uses only fresh graphs from then on.

The shrinker knows neither live graphs nor Hypothesis. It asks a function for runs, and its questions follow from the answers alone.
If the budget ends the shrink early, the result is the smallest accepted plan so far.
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
        first: the trial of that failure. It is not counted as a run of the plan, because the plan was chosen for this failure.
        run: makes one live run of a plan on a fresh graph. It raises `BudgetSpent` if no run is left.
        reuse: makes one live run on a used graph if there is one. None means that every run needs a fresh graph.
        on_trial: called before each live run with its reason, its plan, and the probability that the run breaks the promise.
        plainest: plans of one step that are tried in place of a plan with several steps, the plainest first.
        confirmations: the number of fresh runs that the minimal plan must have. Runs that it had before it was minimal count.
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
    """Run the cut plan, then the whole plan, until a fresh run breaks the promise. False if no run does."""
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
        # At a low failure rate, an unnecessary step may be left in. Then all confirming runs would be wasted.
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
        # The confirming runs tell the failure rate of the minimal plan. It determines how many kept runs reject a smaller plan.
        if not leave_out_singles(state):
            return
        leave_out_steps(state)


def _result(state: ShrinkState, *, any_replica: bool | None, complete: bool) -> Shrunk:
    """Sum up the runs of the shrink so far."""
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

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

**Low failure rates.** If a plan breaks only in some of its runs, candidates are repeated within one run (`repeats`). Such a run breaks
nearly as often as a run of a plan that always breaks. A broken later repetition accepts a candidate for the time being. Before the
plan is confirmed, it has to break on a fresh graph. If it does not, an earlier repetition was the reason: the shrink steps back to the last
plan that has, and believes no later repetition any more. Confirming runs are whole runs of the plan, each on a fresh graph.

**Used graphs.** If a graph starts slowly, it is healed after a run, and used again for the next candidate. An earlier run may have left
unseen traces in it. So runs on used graphs alone do not reject a plan. A plan that broke only on used graphs must break on a fresh graph
before it is confirmed. If it does not, the shrink steps back to an earlier plan, and uses only fresh graphs from then on.

The shrinker knows neither live graphs nor Hypothesis. It asks a function for runs, and its questions follow from the answers alone.
If the budget ends the shrink early, the result is the smallest accepted plan so far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

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
from graphquake.machines.shrinking.repeats import Repeats
from graphquake.machines.shrinking.result import Shrunk, thresholds, without_each
from graphquake.machines.shrinking.state import (
    LEARN_TIMES,
    LIKELY,
    OFTEN,
    REPRODUCE_MAX,
    REPRODUCE_TRIALS,
    UNLIKELY,
    ShrinkState,
)
from graphquake.machines.shrinking.trials import Count, OnTrial, RunPlan, Trial, TrialLog


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
    enough: int = 3,
    controls: int = 3,
    repeats: Repeats | None = None,
    earlier: Mapping[Plan, Count] = MappingProxyType({}),
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
        confirmations: the most fresh runs that the minimal plan gets to be confirmed. Runs that it had before it was minimal count.
        enough: the number of broken fresh runs after which the minimal plan is confirmed. The run that accepted it does not count.
        controls: the number of trials of the minimal plan without its faults.
        repeats: how plans may be repeated within one run if the failure rate is low. None means that each run makes one trial.
        earlier: for some plans, the counts of their earlier runs on fresh graphs. If `plan` itself broke in such a run, it needs no other
            run to reproduce the failure. Kept runs of other plans speak against these. Without a disturbance, they are controls.

    Returns:
        The minimal plan with its evidence. It embeds in `plan`, unless it is one of the plainest plans.
    """
    log = TrialLog(run, on_trial, reuse)
    for known, count in earlier.items():
        log.add_earlier(known, count, first)
    state = ShrinkState(spec, plan, log, plainest, confirmations, controls, enough, repeats)
    any_replica = None
    try:
        if _reproduce(state, first):
            _find_minimal_plan(state)
            any_replica = try_other_replicas(state)
    except BudgetSpent:
        state.step_back_to_believed()
        return _result(state, any_replica=any_replica, complete=False)
    return _result(state, any_replica=any_replica, complete=True)


def _reproduce(state: ShrinkState, first: Trial) -> bool:
    """Run the cut plan, then the whole plan, until a run breaks the promise. False if no run does. Earlier runs count.

    After the first kept run, a failure is taken to be rare. So the free slots make the next of these runs, too.
    """
    whole = prior(state.spec, state.original, first.blame)
    if state.log.has_broken(state.original):
        state.accept(whole)
        state.learn_rate()
        return True
    cut, uncut = whole.until(first.last_step), whole.with_waits_joined()
    half = REPRODUCE_MAX // 2
    tries = [cut] * half + [uncut] * half if cut != uncut else [cut] * REPRODUCE_MAX
    for number, one in enumerate(tries):
        kept = state.log.count(one.plan).ever_kept
        if one.plan in state.log.aside or kept >= REPRODUCE_TRIALS:
            continue
        # If the first run was kept, the failure rate may be low. Then one run makes several trials.
        trials = LEARN_TIMES if number else 1
        likely = UNLIKELY if kept else LIKELY
        if state.log.once_more(one.plan, "reproduce", likely, trials=trials).kind == "broken":
            state.accept(one)
            state.learn_rate()
            return True
    return False


def _find_minimal_plan(state: ShrinkState) -> None:
    _leave_out_fresh(state)
    try_plainer(state)
    state.learn_rate()
    if state.rate() < OFTEN:
        # At a low failure rate, an unnecessary step may be left in. Then all confirming runs would be wasted.
        while leave_out_singles(state, early=True):
            leave_out_steps(state)
    simplify_steps(state)
    lower_numbers(state)
    while state.held:
        if not stands_on_fresh_graphs(state):
            _leave_out_fresh(state)
            lower_numbers(state)
        confirm(state)
        run_controls(state)
        state.learn_rate()
        # The confirming runs tell the failure rate of the minimal plan. It determines how many kept runs reject a smaller plan.
        if not leave_out_singles(state):
            return
        leave_out_steps(state)


def _leave_out_fresh(state: ShrinkState) -> None:
    """Leave out steps, until the smaller plan has broken on a fresh graph."""
    leave_out_steps(state)
    while state.held and not stands_on_fresh_graphs(state):
        leave_out_steps(state)


def _result(state: ShrinkState, *, any_replica: bool | None, complete: bool) -> Shrunk:
    """Sum up the runs of the shrink so far."""
    plan, log = state.minimal_plan, state.log
    count, control = log.count(plan), log.count(control_plan(state))
    broke, runs = count.broke, count.runs
    if not broke and count.first_broke:
        # The budget ended before a run that does not repeat the plan. A first repetition is a run on a fresh graph, too.
        broke, runs = count.fresh_broke, count.fresh_broke + count.fresh_kept
    return Shrunk(
        plan=plan,
        broke=broke,
        runs=runs,
        control_broke=control.ever_broke,
        control_runs=control.ever_broke + control.ever_kept,
        needed=tuple(without_each(state.spec, plan, log)),
        thresholds=tuple(thresholds(plan, log)),
        any_replica=any_replica,
        live_runs=len(log.all),
        complete=complete and plan not in log.aside,
        confirmed=any(log.count(plan).fresh_broke for plan in state.held),
        journal=tuple(log.all),
    )

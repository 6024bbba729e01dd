"""A search: the sweep, then rounds of drawing plans until the budget is spent, or until there are enough findings.

A round is one run of the Hypothesis machine. It ends at its first finding. Each round has another seed, derived from the seed of the
session, the graph's name and the number of the round. So the same seed draws the same plans up to the first finding.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, Literal, TypeAlias

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.case import Case
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.rounds import Rounds, StopDrawing
from graphquake.machines.plans.constants import no_constants_from_source
from graphquake.machines.plans.drawn_rules import machine_for, own_rules_for
from graphquake.machines.plans.machine import STEPS_MAX, PlanMachine
from graphquake.machines.plans.pairs import pairs, plainest_pairs
from graphquake.machines.plans.plainest import plainest
from graphquake.machines.plans.sweep import Sweep, sweep
from graphquake.machines.runners.budget import BudgetSpent

Ended: TypeAlias = Literal["budget", "findings", "exhausted"]

# A draw costs about 40 ms and a run seconds, so the budget ends a round long before this bound.
PLANS_A_ROUND: Final = 2_000
# After this many rounds in a row without a live run, the search ends. It assumes that all plans worth a run were drawn.
IDLE_ROUNDS_MAX: Final = 3
# If the user's own class draws the plans, this many draws with its own rules alone show the sweep which disturbances they make.
OWN_RULES_DRAWS: Final = 60

SETTINGS: Final = settings(
    max_examples=PLANS_A_ROUND,
    stateful_step_count=STEPS_MAX + 1,
    deadline=None,
    # Under CI, Hypothesis's default profile sets `derandomize`, which overrides every seed, and drops the database.
    derandomize=False,
    database=None,
    report_multiple_bugs=False,
    # Plans are shrunk by `machines.shrinking`. Hypothesis only draws them.
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
    verbosity=Verbosity.quiet,
)


def round_seed(session_seed: int, graph: str, number: int, shard: int = 0) -> int:
    """The seed of one round. The first shard has the same seeds as a search in one process."""
    text = f"{session_seed}/{graph}/{number}" + (f"/{shard}" if shard else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def search(
    rounds: Rounds,
    session_seed: int,
    *,
    findings_max: int,
    base: type[PlanMachine] = PlanMachine,
    shard: int = 0,
    unshrunk: Iterable[Case] = (),
    plain: bool = True,
    config: settings = SETTINGS,
) -> Ended:
    """Continue the shrinks of the unshrunk cases, and run the sweep. Then draw plans and run them.

    Args:
        rounds: runs the drawn plans. Its runner ends the search when the budget is spent.
        session_seed: the value of `--hypothesis-seed`.
        findings_max: stop after this many findings that fail the session.
        base: the class of the machine that draws plans. A user's subclass may add rules.
        shard: the number of this process's part of the search, from 0. Each part draws from its own seeds. Only the first one sweeps.
        unshrunk: cases that an earlier search had no time to shrink.
        plain: if false, there is no sweep and there are no pairs: only drawn plans are run.

    Returns:
        `budget` if no run fits into the budget any more, `findings` if there are `findings_max` findings, or `exhausted` after
        `IDLE_ROUNDS_MAX` rounds in a row without a live run.
    """
    pipeline = rounds.pipeline
    pipeline.plainest = plainest(rounds.spec)

    def draw(number: int) -> None:
        rounds.begin(number)
        machine = machine_for(rounds.spec, partial(_take, rounds), base)
        seed(round_seed(session_seed, rounds.spec.name, number, shard))(machine)
        _draw(machine, config)

    try:
        _go_on(pipeline, unshrunk, findings_max)
        if plain:
            _run_plain(rounds, session_seed, findings_max, base, shard)
        ended = _rounds(rounds, draw, findings_max)
        rounds.cancel_runs()
        rounds.confirm_findings()
    except BudgetSpent:
        rounds.read_runs()
        ended = "budget"
    rounds.holds.report()
    return ended


def _rounds(rounds: Rounds, draw: Callable[[int], None], findings_max: int) -> Ended:
    """Draw round after round."""
    idle = 0
    for number in itertools.count():
        if rounds.pipeline.found >= findings_max:
            return "findings"
        runs_before = rounds.log.live.total()
        draw(number)
        idle = idle + 1 if rounds.log.live.total() == runs_before else 0
        if idle >= IDLE_ROUNDS_MAX:
            rounds.finish_runs()
            return "exhausted"
    raise AssertionError("unreachable")


def _draw(machine: type[PlanMachine], config: settings) -> None:
    """Let Hypothesis draw plans until the round ends. An error that ended the drawing is raised as it was."""
    try:
        with no_constants_from_source():
            run_state_machine_as_test(machine, settings=config)
    except StopDrawing as stop:
        if stop.error is not None:
            raise stop.error from None


def _run_plain(
    rounds: Rounds, session_seed: int, findings_max: int, base: type[PlanMachine], shard: int
) -> None:
    """Run the first sweep, and let pairs and the second sweep follow the drawn plans. The first shard alone sweeps."""
    singles = plans_of_sweep(rounds.spec, session_seed, base)
    number = round_seed(session_seed, rounds.spec.name, 0, shard)
    rounds.plainest.extend(plainest_pairs(rounds.spec, singles.plain, number))
    rounds.pairs = pairs(rounds.spec, singles.plain, number, singles.seldom)
    if not shard:
        rounds.singles.extend(singles.second)
        rounds.sweep(singles.first, findings_max)


def _go_on(pipeline: FindingPipeline, unshrunk: Iterable[Case], findings_max: int) -> None:
    for case in unshrunk:
        if pipeline.found < findings_max:
            pipeline.go_on(case)


def _take(rounds: Rounds, plan: Plan) -> None:
    """Pass a drawn plan to `rounds`. An error must not look like a failure of the plan: Hypothesis would run the plan again."""
    try:
        rounds(plan)
    except Exception as error:  # noqa: BLE001 - raised again by `search`
        raise StopDrawing(error) from None


def plans_of_sweep(
    spec: GraphSpec, session_seed: int, base: type[PlanMachine] = PlanMachine
) -> Sweep:
    """The plans of the sweep of a search with this seed, in order. None is run."""
    drawn: list[Plan] = []

    def note(plan: Plan) -> None:
        drawn.append(plan)
        if len(drawn) >= OWN_RULES_DRAWS:
            raise StopDrawing

    if base is not PlanMachine:
        _draw_alone(own_rules_for(spec, note, base), session_seed)
    return sweep(spec, base, drawn)


def draw_plans(
    spec: GraphSpec, session_seed: int, count: int, base: type[PlanMachine] = PlanMachine
) -> list[Plan]:
    """The first plans that a search with this seed would draw, without those that only wait or repeat. None is run."""
    drawn: list[Plan] = []

    def note(plan: Plan) -> None:
        if plan.disturbs and plan not in drawn:
            drawn.append(plan)
        if len(drawn) >= count:
            raise StopDrawing

    _draw_alone(machine_for(spec, note, base), session_seed)
    return drawn


def _draw_alone(machine: type[PlanMachine], session_seed: int) -> None:
    """Draw plans as the first round of a search does, until the machine's `on_plan` raises `StopDrawing`."""
    seed(round_seed(session_seed, machine.spec.name, 0))(machine)
    _draw(machine, SETTINGS)

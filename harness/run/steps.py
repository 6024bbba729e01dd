"""Carries out one step, and proves that it landed.

A step ends when it has taken effect, not when its consequences are over. So a kill can fall into a burst, or into the start of another
replica. The observation is written into a `StepDone`. A fault that could not be shown to have landed makes its run invalid.
The kinds of steps do the work, see `harness.spec.steps`.
"""

from __future__ import annotations

import time

from graphquake.harness.clients.load import Load
from graphquake.harness.history.events import StepDone
from graphquake.harness.spec.plan import Step
from graphquake.harness.spec.steps.actions import Scene
from graphquake.harness.targets.target import Target


async def carry_out(number: int, step: Step, target: Target, load: Load) -> StepDone:
    """Carry out one step.

    Args:
        number: its place in the plan, from 0.
        step: the step.
        target: the live graph.
        load: the clients, for bursts and for the number of requests in flight.

    Returns:
        The observation, on the run's clock.
    """
    begun_s = load.now_s()
    in_flight = load.in_flight
    landed = await step.run(Scene(number, target, load))
    proof = landed.proof
    if step.is_fault and landed.ok:
        proof = f"{proof}, {in_flight} requests in flight"
    at_s = landed.at_s - (time.monotonic() - load.now_s())
    return StepDone(at_s, begun_s, number, step, landed.ok, proof)

"""Carry out one step of a plan, and prove that it landed, which means that it took effect.

A step ends when it has taken effect, not when its consequences are over. So a kill can fall into a burst, or into the start of another
replica. A `StepDone` records the proof. A fault that could not be shown to have landed makes its run invalid.
Each kind of step knows how it is carried out, see `harness.spec.steps`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from graphquake.harness.clients.load import Load
from graphquake.harness.history.events import StepDone, Traffic
from graphquake.harness.promises.idle import is_idle, share_text
from graphquake.harness.spec.plan import Step
from graphquake.harness.spec.steps.actions import Scene
from graphquake.harness.targets.target import Target


async def carry_out(
    number: int, step: Step, target: Target, load: Load, traffic: Sequence[Traffic] = ()
) -> StepDone:
    """Carry out one step.

    Args:
        number: the place of the step in the plan, from 0.
        step: the step.
        target: the live graph.
        load: the clients, for bursts and for the number of requests in flight.
        traffic: the work of the step's victims until now. The proof tells of it.

    Returns:
        The event that records the step. Its times are on the run's clock.
    """
    begun_s = load.now_s()
    in_flight = load.in_flight
    landed = await step.run(Scene(number, target, load))
    proof = landed.proof
    if step.is_fault and landed.ok:
        proof = f"{proof}, {in_flight} requests in flight"
        if traffic:
            shares = (
                f"idle: {share_text(one)}" if is_idle(one) else share_text(one) for one in traffic
            )
            proof += f"; {', '.join(shares)}"
    at_s = landed.at_s - (time.monotonic() - load.now_s())
    return StepDone(at_s, begun_s, number, step, landed.ok, proof)

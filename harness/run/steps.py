"""Carry out one step of a plan, and prove that it landed, which means that it took effect.

A step ends when it has taken effect, not when its consequences are over. So a kill can fall into a burst, or into the start of another
replica. A `StepDone` records the proof. A fault that could not be shown to have landed makes its run invalid.
The class of each kind of step carries it out, see `harness.spec.steps`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from graphquake.harness.clients.load import Load
from graphquake.harness.history.events import Resumed, StepDone, Traffic, Undone
from graphquake.harness.promises.idle import is_idle, share_text
from graphquake.harness.spec.plan import Step
from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.cluster.cordon import Cordon
from graphquake.harness.spec.steps.cluster.scale import Scale
from graphquake.harness.spec.steps.cluster.scale_up import ScaleUp
from graphquake.harness.spec.steps.network.fault import LinkFault
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
    zero_s = time.monotonic() - load.now_s()
    told = tuple((at_s - zero_s, replica) for at_s, replica in landed.told)
    at_s = landed.at_s - zero_s
    return StepDone(at_s, begun_s, number, step, landed.ok, proof, landed.missed, told)


def end_events(number: int, step: Step, undone: Landed, zero_s: float) -> list[Resumed | Undone]:
    """Return the events that record the end of a step that acted on the graph.

    Args:
        number: the place of the step in the plan, from 0.
        step: the step.
        undone: the proof that it was undone.
        zero_s: `time.monotonic()` at the run's time 0.
    """
    at_s = undone.at_s - zero_s
    if step.is_own or isinstance(step, LinkFault | Scale | ScaleUp | Cordon):
        return [Undone(at_s, number, step, undone.proof)]
    return [Resumed(at_s, replica, undone.proof) for replica in step.aims]


@asynccontextmanager
async def undone_on_error(undo: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Call `undo` if the block raises an error, also if the block is cancelled."""
    try:
        yield
    except BaseException:
        await undo()
        raise

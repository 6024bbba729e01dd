"""Carries out one step, and proves that it landed.

A step ends when it has taken effect, not when its consequence is over: a kill when the processes are gone, a stall when they are
stopped, a respawn when there is a new pid, a burst when it was started. So a kill can fall into a burst, or into somebody's start-up.
What was seen is written into a `StepDone`; a fault that could not be shown to have landed makes its run prove nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from graphquake.harness.clients.load import Load
from graphquake.harness.history.events import StepDone
from graphquake.harness.spec.plan import (
    Burst,
    Kill,
    Respawn,
    Stall,
    Step,
    Terminate,
    Wait,
    WaitReady,
    is_fault,
)
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import Landed, Target

# Longest that `wait until ready` waits on top of what the roles' own `within_s` allow.
READY_SLACK_S: Final = 5.0


async def carry_out(number: int, step: Step, target: Target, load: Load) -> StepDone:
    """Do one step.

    Args:
        number: its place in the plan, from 0.
        step: what to do.
        target: whom to do it to.
        load: the clients, for bursts and for what is in flight.

    Returns:
        What was seen, on the run's clock.
    """
    begun_s = load.now_s()
    in_flight = load.in_flight
    landed = await _do(number, step, target, load)
    proof = landed.proof
    if is_fault(step) and landed.ok:
        proof = f"{proof}, {in_flight} requests in flight"
    at_s = landed.at_s - (time.monotonic() - load.now_s())
    return StepDone(at_s, begun_s, number, step, landed.ok, proof)


async def _do(number: int, step: Step, target: Target, load: Load) -> Landed:
    match step:
        case Kill():
            return await target.kill(Replica(step.role, step.index), step.scope, step.child)
        case Terminate():
            return await target.terminate(Replica(step.role, step.index))
        case Stall():
            return await target.stall(Replica(step.role, step.index))
        case Respawn():
            return await bring_back(target, Replica(step.role, step.index))
        case Burst():
            load.burst(number, step)
            return _now(f"{step.requests} requests begun")
        case Wait():
            await asyncio.sleep(step.for_s)
            return _now("")
        case WaitReady():
            return await _wait_ready(target)


async def bring_back(target: Target, replica: Replica) -> Landed:
    """Start a replica again; one that is to end gets the time that its file allows to do so, then it is killed."""
    stop_s = target.spec.role(replica.role).stop_s
    drained = ""
    if target.ending(replica):
        if await target.gone(replica, stop_s):
            drained = "after it had ended, "
        else:
            await target.kill(replica, "tree", 0)
            drained = f"after SIGKILL, since it had not ended in {stop_s:g} s, "
    landed = await target.respawn(replica)
    return Landed(landed.ok, drained + landed.proof, landed.at_s)


async def _wait_ready(target: Target) -> Landed:
    within_s = READY_SLACK_S + max(
        (role.ready.within_s for role in target.spec.roles if role.ready), default=0.0
    )
    ready = await target.wait_ready(within_s)
    # Not being ready is what the graph did, not a step that failed to land: promises judge it.
    return _now("all ready" if ready else f"not ready within {within_s:g} s")


def _now(proof: str) -> Landed:
    return Landed(ok=True, proof=proof, at_s=time.monotonic())

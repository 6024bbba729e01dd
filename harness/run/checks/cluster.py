"""The checks of faults that act on the objects of a cluster."""

from __future__ import annotations

import time

from graphquake.harness.run.checks.common import (
    NOTICED_WITHIN_S,
    READY_WITHIN_S,
    check_landed,
    deaths_of,
    life_of,
    must,
    soon,
)
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import Target


async def scale(target: Target, victim: Replica) -> str:
    """A scale ends one replica less, aimed, and its end brings the number back."""
    role, count = victim.role, target.spec.role(victim.role).replicas
    every = [one for one in target.spec.replicas() if one.role == role]
    begun_s = time.monotonic()
    landed = await target.cluster.scale(role, count - 1)
    check_landed(landed, begun_s)
    must(len(landed.told) == 1, f"told has {len(landed.told)} replicas, expected 1")
    gone = landed.told[0][1]
    stop_s = target.spec.role(role).stop_s + NOTICED_WITHIN_S
    await soon(lambda: not target.alive(gone), f"{gone} lives on", stop_s)
    must(deaths_of(target, gone)[-1].aimed, "Died is not aimed, although a step caused it")
    must(await target.wait_ready(READY_WITHIN_S), "wait_ready waits for the replica that is gone")
    must(sum(map(target.alive, every)) == count - 1, "more than one replica is gone")
    back = await target.cluster.unscale(role)
    must(back.ok, f"the end of the scale did not land: {back.proof}")
    must(
        await target.wait_ready(READY_WITHIN_S),
        f"the graph is not ready after {READY_WITHIN_S:g} s",
    )
    must(all(map(target.ready, every)), "wait_ready came back, and a replica is not ready")
    return f"{landed.proof}; {back.proof}"


async def scale_up(target: Target, victim: Replica) -> str:
    """A scale to more replicas ends none. After its end, the role has as many as before, and each is ready."""
    role, spec = victim.role, target.spec.role(victim.role)
    every = [one for one in target.spec.replicas() if one.role == role]
    lives, begun_s = {one: life_of(target, one) for one in every}, time.monotonic()
    landed = await target.cluster.scale(role, spec.scales_to)
    check_landed(landed, begun_s)
    must(not landed.told, "told has replicas, although the scale ends none")
    must({one: life_of(target, one) for one in every} == lives, "the scale began a new life")
    back = await target.cluster.unscale(role)
    must(back.ok, f"the end of the scale did not land: {back.proof}")
    must(
        await target.wait_ready(READY_WITHIN_S),
        f"the graph is not ready after {READY_WITHIN_S:g} s",
    )
    must(all(map(target.ready, every)), "wait_ready came back, and a replica is not ready")
    for one in every:
        must(all(died.aimed for died in deaths_of(target, one)), f"Died of {one} is not aimed")
    return f"{landed.proof}; {back.proof}"


async def rollout(target: Target, victim: Replica) -> str:
    """A rollout gives each replica of a role a new incarnation, and tells when each old one was told to end."""
    every = [one for one in target.spec.replicas() if one.role == victim.role]
    lives = {one: life_of(target, one) for one in every}
    begun_s = time.monotonic()
    landed = await target.cluster.rollout(victim.role)
    check_landed(landed, begun_s)
    must(not landed.missed, f"the rollout did not end: {landed.proof}")
    must({one for _, one in landed.told} == {*every}, "told does not have every replica")
    for one in every:
        must(life_of(target, one) > lives[one], f"{one} has no new incarnation")
        must(target.ready(one), f"{one} is not ready")
        must(deaths_of(target, one)[-1].aimed, f"Died of {one} is not aimed")
    return landed.proof


async def cordon(target: Target, victim: Replica) -> str:
    """A cordon ends nothing, can't begin twice, and has an end."""
    number, begun_s = life_of(target, victim), time.monotonic()
    landed = await target.cluster.cordon(victim)
    check_landed(landed, begun_s)
    again = await target.cluster.cordon(victim)
    must(not again.ok, "a cordon of a cordoned node has landed")
    back = await target.cluster.uncordon(victim)
    must(back.ok, f"the end of the cordon did not land: {back.proof}")
    must(life_of(target, victim) == number, "the cordon began a new life")
    return f"{landed.proof}; {back.proof}"

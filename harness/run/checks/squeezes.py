"""The checks of squeezes of CPU and memory. Requests are sent meanwhile, because a replica without work needs no CPU."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from graphquake.harness.run.checks.common import NOTICED_WITHIN_S, check_landed, life_of, must, soon
from graphquake.harness.run.checks.links import asking
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Squeezable
from graphquake.harness.spec.steps.scope import TREE
from graphquake.harness.targets.target import Target

FOR_S: Final = 5.0
# In percent of a core.
HALF: Final = 50


def squeeze(what: Squeezable, amount: int) -> Callable[[Target, Replica], Awaitable[str]]:
    """The check of a squeeze: it lands, can't start twice, ends no life, and has an end."""

    async def check(target: Target, victim: Replica) -> str:
        life = life_of(target, victim)
        started_s = time.monotonic()
        async with asking(target):
            landed = await target.resources.squeeze(victim, what, amount, FOR_S)
        check_landed(landed, started_s)
        again = await target.resources.squeeze(victim, what, amount, FOR_S)
        must(not again.ok, "a second squeeze of the same resource has landed")
        released = await target.resources.release(victim, what)
        must(released.ok, f"the end of the squeeze did not land: {released.proof}")
        await soon(
            lambda: target.ready(victim), f"{victim} is not ready afterwards", NOTICED_WITHIN_S
        )
        must(life_of(target, victim) == life, "the squeeze started a new life")
        return f"{landed.proof}; {released.proof}"

    return check


async def not_squeezed(target: Target, victim: Replica) -> str:
    """Negative control: a stalled replica needs no CPU. So a squeeze of it has no effect, and does not land."""
    life = life_of(target, victim)
    stalled = await target.stall(victim, TREE)
    must(stalled.ok, f"the stall did not land: {stalled.proof}")
    landed = await target.resources.squeeze(victim, "cpu", HALF, FOR_S)
    resumed = await target.resume(victim)
    must(resumed.ok, f"the end of the stall did not land: {resumed.proof}")
    must(not landed.ok, "a squeeze without an effect has landed")
    await soon(lambda: target.ready(victim), f"{victim} is not ready afterwards")
    must(target.ready(victim) and life_of(target, victim) == life, f"it changed {victim}")
    return landed.proof

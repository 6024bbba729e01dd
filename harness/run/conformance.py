"""Check that a target keeps the protocol `Target`: each fault with its proof, negative controls, incarnations, leaks.

`conform` opens a graph and carries out one check after another on it. Between two checks the graph is healed. A kind of fault that the
target declares as lacking is left out, and the result says so. A user's own target can be checked in the same way (see the docs).

A check compares the claim of the target (`Landed`) with its later answers (`alive`, `ready`, `log`). It can't notice a target whose answers
are wrong in both. So a target's own tests should also look at the processes themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from graphquake.harness.history.events import BecameReady, Died, Spawned
from graphquake.harness.run.checks.cluster import cordon, rollout, scale, scale_up
from graphquake.harness.run.checks.common import (
    EARLY_S,
    NOTICED_WITHIN_S,
    POLL_S,
    READY_WITHIN_S,
    BrokenError,
    check_landed,
    deaths_of,
    life_of,
    must,
    soon,
)
from graphquake.harness.run.checks.links import link, missed
from graphquake.harness.run.checks.squeezes import not_squeezed, squeeze
from graphquake.harness.run.healing import bring_back_all, replicas_down
from graphquake.harness.run.open_target import OpenTarget
from graphquake.harness.spec.faults import LINK_FAULTS
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.scope import TREE
from graphquake.harness.spec.steps.table import fits
from graphquake.harness.targets.target import Landed, Target

Answer: TypeAlias = Literal["kept", "left out", "broken"]
Fault: TypeAlias = Callable[[Target, Replica], Awaitable[Landed]]
# The kinds of faults that only pods can have.
_OF_PODS: Final = frozenset({"delete", "scale", "scale up", "rollout", "cordon"})


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one check.

    Attributes:
        check: the name of the check.
        answer: `kept`, `left out` or `broken`.
        said: the proof, the missing ability, or the mistake.
    """

    check: str
    answer: Answer
    said: str


# --------------------------------------------------------------------------------------------------------- the checks


async def _opened(target: Target, victim: Replica) -> str:
    """A graph that was just opened is whole, and its log tells of each life once."""
    del victim
    must(target.entries(), "entries() is empty")
    for one in target.spec.replicas():
        must(target.alive(one) and target.ready(one), f"{one} is not alive and ready")
        must(not target.ending(one), f"{one} is ending")
        number = life_of(target, one)
        for kind in (Spawned, BecameReady):
            told = [e for e in target.log if isinstance(e, kind) and e.replica == one]
            must(
                [e.incarnation for e in told] == [number],
                f"{kind.__name__} of {one} is not there once",
            )
    return f"{len(target.spec.replicas())} replicas alive and ready"


def _ends(fault: Fault) -> Callable[[Target, Replica], Awaitable[str]]:
    """The check of a fault after which the main process of a replica ends."""

    async def check(target: Target, victim: Replica) -> str:
        others = [one for one in target.spec.replicas() if one != victim]
        lives = {one: life_of(target, one) for one in others}
        number, deaths = life_of(target, victim), len(deaths_of(target, victim))
        begun_s = time.monotonic()
        landed = await fault(target, victim)
        check_landed(landed, begun_s)
        stop_s = target.spec.role(victim.role).stop_s + NOTICED_WITHIN_S
        await soon(lambda: len(deaths_of(target, victim)) > deaths, f"no Died of {victim}", stop_s)
        died = deaths_of(target, victim)[-1]
        must(
            died.incarnation == number,
            f"Died has incarnation {died.incarnation}, expected {number}",
        )
        must(died.aimed, "Died is not aimed, although a step caused it")
        must(died.at_s >= begun_s - EARLY_S, "Died lies before the fault")
        for landed_back in await bring_back_all(target, replicas_down(target)):
            must(landed_back[1].ok or target.alive(victim), landed_back[1].proof)
        must(
            await target.wait_ready(READY_WITHIN_S),
            f"the graph is not ready after {READY_WITHIN_S:g} s",
        )
        must(life_of(target, victim) > number, "the new life has no new incarnation")
        must(target.ready(victim), f"wait_ready came back, and {victim} is not ready")
        must(
            {one: life_of(target, one) for one in others} == lives,
            "another replica began a new life",
        )
        return landed.proof

    return check


async def _kill(target: Target, victim: Replica) -> Landed:
    return await target.kill(victim, TREE)


async def _dead(target: Target, victim: Replica) -> str:
    """Negative control: nothing can be done to a dead replica, and the target says so."""
    check_landed(await target.kill(victim, TREE), time.monotonic() - READY_WITHIN_S)
    was_dead = not target.alive(victim)
    again = await target.kill(victim, TREE)
    if was_dead and not target.alive(victim):
        must(not again.ok, "a kill of a dead replica has landed")
    await bring_back_all(target, replicas_down(target))
    must(
        await target.wait_ready(READY_WITHIN_S),
        f"the graph is not ready after {READY_WITHIN_S:g} s",
    )
    return again.proof


async def _stall(target: Target, victim: Replica) -> str:
    """A stalled replica lives, and is not ready. After the end of the stall it is ready again, in the same life."""
    number, begun_s = life_of(target, victim), time.monotonic()
    landed = await target.stall(victim, TREE)
    check_landed(landed, begun_s)
    must(target.alive(victim), f"{victim} is stalled, and not alive any more")
    must(not target.ready(victim), f"{victim} is stalled, and still counts as ready")
    resumed = await target.resume(victim)
    must(resumed.ok, f"the end of the stall did not land: {resumed.proof}")
    await soon(lambda: target.ready(victim), f"{victim} is not ready after the stall")
    must(life_of(target, victim) == number, "the stall began a new life")
    return f"{landed.proof}; {resumed.proof}"


async def _not_stalled(target: Target, victim: Replica) -> str:
    """Negative control: the end of a stall that never began is no error, and changes nothing."""
    number = life_of(target, victim)
    landed = await target.resume(victim)
    must(landed.ok, f"resume of a replica that is not stalled did not land: {landed.proof}")
    must(target.ready(victim) and life_of(target, victim) == number, f"resume changed {victim}")
    return landed.proof


async def _incarnations(target: Target, victim: Replica) -> str:
    """The lives of a replica are numbered one after the other, and each has its times in order."""
    lives = [e for e in target.log if isinstance(e, Spawned) and e.replica == victim]
    numbers = [e.incarnation for e in lives]
    must(numbers == [*range(numbers[0], numbers[0] + len(numbers))], f"the numbers are {numbers}")
    times = [e.at_s for e in target.log if e.replica == victim]
    must(times == sorted(times), f"the events of {victim} are not in the order of time")
    for life in lives:
        own = [e for e in target.log if e.replica == victim and e.incarnation == life.incarnation]
        must(
            isinstance(own[0], Spawned),
            f"incarnation {life.incarnation} does not begin with Spawned",
        )
        ends = [e for e in own if isinstance(e, Died)]
        must(
            len(ends) == (life is not lives[-1]),
            f"incarnation {life.incarnation} has {len(ends)} deaths",
        )
    return f"incarnations {numbers[0]} to {numbers[-1]}"


async def _leaks(target: Target, victim: Replica) -> str:
    """A whole graph without load leaks nothing."""
    del victim
    until_s = time.monotonic() + NOTICED_WITHIN_S
    while found := await target.leaks():
        must(time.monotonic() < until_s, f"leak: {found[0].what}")
        await asyncio.sleep(POLL_S)
    return "no leaks"


async def _next_run(target: Target, victim: Replica) -> str:
    """The next run does not see the deaths of earlier ones."""
    del victim
    target.begin_run()
    must(not any(isinstance(e, Died) for e in target.log), "begin_run kept a death")
    for one in target.spec.replicas():
        life_of(target, one)
    return "the log has the present lives only"


# Each check with its name, and the title of the fault that it needs. The order matters: the first one sees a fresh graph.
CHECKS: Final[tuple[tuple[str, str, Callable[[Target, Replica], Awaitable[str]]], ...]] = (
    ("opened", "", _opened),
    ("not stalled", "", _not_stalled),
    ("stall", "stall", _stall),
    ("kill", "kill", _ends(_kill)),
    ("dead", "kill", _dead),
    ("terminate", "terminate", _ends(lambda target, one: target.terminate(one))),
    ("interrupt", "interrupt", _ends(lambda target, one: target.interrupt(one))),
    ("delete", "delete", _ends(lambda target, one: target.delete(one, None))),
    ("scale", "scale", scale),
    ("scale up", "scale up", scale_up),
    ("rollout", "rollout", rollout),
    ("cordon", "cordon", cordon),
    ("cut", "cut", link("cut", 0.0)),
    ("reset", "reset", link("reset", 0.0)),
    ("lose", "lose", link("lose", 0.9)),
    ("slow", "slow", link("slow", 50_000.0)),
    ("delay", "delay", link("delay", 0.05)),
    ("cut missed", "cut", missed),
    ("squeeze cpu", "squeeze cpu", squeeze("cpu", 1)),
    ("squeeze memory", "squeeze memory", squeeze("memory", 64)),
    ("not squeezed", "squeeze cpu", not_squeezed),
    ("incarnations", "", _incarnations),
    ("leaks", "", _leaks),
    ("next run", "", _next_run),
)


async def conform(
    spec: GraphSpec, opener: OpenTarget, folder: Path, victim: Replica
) -> list[Result]:
    """Open a graph, and check its target.

    Args:
        spec: the graph, as `on_this_machine` returns it. Its `lacks` names the kinds of faults that are left out.
        opener: opens the target.
        folder: an existing folder for the graph's own files.
        victim: the replica that faults hit. The others must not die with it.

    Returns:
        One result for each check, in the order of `CHECKS`. After a broken check the graph may not be whole, so the rest is not tried.

    Raises:
        GraphError: if the graph does not become ready.
    """
    results: list[Result] = []
    async with opener(spec, folder) as target:
        for name, needs, check in CHECKS:
            if needs and (missing := _missing(spec, needs, victim)):
                results.append(Result(name, "left out", missing))
                continue
            try:
                results.append(Result(name, "kept", await check(target, victim)))
            except BrokenError as broken:
                results.append(Result(name, "broken", str(broken)))
                break
    return results


def _missing(spec: GraphSpec, title: str, victim: Replica) -> str:
    """Return why a kind of fault is not possible, or an empty text."""
    if title in _OF_PODS and not spec.role(victim.role).in_pods:
        return f"{victim} is not a pod"
    if not fits(title, spec.role(victim.role)):
        return f"the graph file does not allow it at {victim.role}"
    if title in LINK_FAULTS and spec.network == "host":
        return spec.lacks.get(title, 'network is "host"')
    return spec.lacks.get(title, "")

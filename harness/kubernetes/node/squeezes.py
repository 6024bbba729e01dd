"""Squeezes of containers by the agents: see `container_limits`. A container that starts during a squeeze is free of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.node.agents import Agents, Answer
from graphquake.harness.kubernetes.pods import Pod
from graphquake.harness.kubernetes.verbs import NEEDS_NODE, not_landed
from graphquake.harness.processes.replicas import Incarnation
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, Squeezable, landed_now

# The longest wait for the effect of a squeeze of CPU. A container that needs less than its share in this time is not squeezed.
EFFECT_WITHIN_S: Final = 2.0
LOOK_EVERY_S: Final = 0.05
KNOWN: Final = ("cpu", "memory")


class PodSqueezes:
    """See `ResourceActions`.

    Args:
        agents: the agents of the graph, or None if it has none.
        running: returns the pod and the incarnation of a replica, or None if it does not run.
    """

    def __init__(
        self, agents: Agents | None, running: Callable[[Replica], tuple[Pod, Incarnation] | None]
    ) -> None:
        self._agents = agents
        self._running = running
        # Whether the life counted as aimed at before is kept, too.
        self._ongoing: dict[tuple[Replica, Squeezable], tuple[Pod, Incarnation, bool]] = {}

    async def squeeze(
        self, replica: Replica, what: Squeezable, amount: int, for_s: float
    ) -> Landed:
        """See `ResourceActions.squeeze`."""
        del for_s  # the agent needs no time limit of its own, because it undoes everything when the harness is gone
        if self._agents is None or what not in KNOWN:
            return not_landed(f"{what} of {replica}: {NEEDS_NODE}")
        if (there := self._running(replica)) is None:
            return not_landed(f"{replica} does not run")
        pod, life = there
        try:
            said = await self._ask(pod, "squeeze", what=what, amount=amount)
            if not said.ok:
                return not_landed(f"{what} of {replica}: {said.proof}")
            if what == "cpu" and not await self._is_throttled(pod):
                await self._ask(pod, "release", what=what)
                return not_landed(f"{replica} needed no more than its share in {EFFECT_WITHIN_S:g} s")  # fmt: skip
        except ApiError as error:
            return not_landed(str(error))
        life.partly = True
        self._ongoing[replica, what] = pod, life, life.aimed
        # The kernel kills a process that needs more memory than the limit. The squeeze has then caused it.
        life.aimed = life.aimed or what == "memory"
        return landed_now(said.proof)

    async def release(self, replica: Replica, what: Squeezable) -> Landed:
        """See `ResourceActions.release`."""
        if (there := self._ongoing.pop((replica, what), None)) is None:
            return landed_now(f"{what} of {replica} was not taken")
        pod, life, was_aimed = there
        life.partly = any(one is life for _, one, _ in self._ongoing.values())
        try:
            said = await self._ask(pod, "release", what=what)
        except ApiError as error:
            return not_landed(str(error))
        if what == "memory" and life.runs and not life.terminating:
            life.aimed = was_aimed
        ended = "" if life.runs else "it had died; "
        return Landed(ok=said.ok, proof=f"{ended}{said.proof}", at_s=time.monotonic())

    async def _is_throttled(self, pod: Pod) -> bool:
        until_s = time.monotonic() + EFFECT_WITHIN_S
        while not (await self._ask(pod, "met", what="cpu")).result:
            if time.monotonic() > until_s:
                return False
            await asyncio.sleep(LOOK_EVERY_S)
        return True

    async def _ask(self, pod: Pod, do: str, **asked: Any) -> Answer:
        assert self._agents is not None
        session = await self._agents.at(pod.item["spec"].get("nodeName", ""))
        return await session.ask(do, container=pod.container_id.rpartition("/")[2], **asked)

"""The faults that need a process on the node: kills and stalls by the agent, each with its proof."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, Final

from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.node.agents import Agents
from graphquake.harness.kubernetes.pods import Pod
from graphquake.harness.kubernetes.verbs import not_landed
from graphquake.harness.processes.replicas import Incarnation
from graphquake.harness.spec.roles.role import RoleSpec
from graphquake.harness.spec.steps.scope import TREE, Child, Scope
from graphquake.harness.targets.target import Landed

# The time limit for the cluster to notice the end of a container. A kubelet looks once a second.
NOTICED_WITHIN_S: Final = 10.0


def _scope(role: RoleSpec, scope: Scope) -> dict[str, Any]:
    """The words for the agent that say which processes are meant."""
    if isinstance(scope, Child):
        return {"child": role.children[scope.name], "index": scope.index}
    return {} if scope == TREE else {"main": True}


class NodeFaults:
    """Kills and stalls of containers.

    Args:
        agents: the agents of the graph.
    """

    def __init__(self, agents: Agents) -> None:
        self._agents = agents

    async def _ask(self, pod: Pod, do: str, **asked: Any) -> Landed:
        node = pod.item["spec"].get("nodeName", "")
        container = pod.container_id.rpartition("/")[2]
        try:
            session = await self._agents.at(node)
            said = await session.ask(do, container=container, **asked)
        except ApiError as error:
            return not_landed(str(error))
        return Landed(ok=said.ok, proof=said.proof, at_s=time.monotonic())

    async def kill(self, role: RoleSpec, pod: Pod, life: Incarnation, scope: Scope) -> Landed:
        """Kill processes of a container. If the main process is among them, wait until the cluster has noticed its end."""
        is_child = isinstance(scope, Child)
        dooms = isinstance(scope, Child) and scope.name in role.dies_with
        life.aimed = life.aimed or dooms or not is_child
        landed = await self._ask(pod, "kill", **_scope(role, scope))
        if landed.ok and dooms:
            life.terminating = life.runs
        if landed.ok and not is_child:
            with suppress(TimeoutError):
                async with asyncio.timeout(NOTICED_WITHIN_S):
                    await life.ended.wait()
            if life.runs:
                return not_landed(f"{landed.proof}, but the cluster did not notice it within {NOTICED_WITHIN_S:g} s")  # fmt: skip
        return landed

    async def stall(self, role: RoleSpec, pod: Pod, life: Incarnation, scope: Scope) -> Landed:
        """Stop processes of a container."""
        landed = await self._ask(pod, "stall", **_scope(role, scope))
        life.stalled = landed.ok
        life.partly = landed.ok and scope != TREE
        return landed

    async def resume(self, pod: Pod, life: Incarnation) -> Landed:
        """Let the processes of a container go on."""
        landed = await self._ask(pod, "resume")
        if landed.ok:
            life.stalled = life.partly = False
        return landed

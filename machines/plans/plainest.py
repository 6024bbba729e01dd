"""The plainest plans for a graph. The shrinker tries each of them in place of a minimal plan that has several steps."""

from __future__ import annotations

from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Burst, Kill, Plan, Step
from graphquake.harness.spec.steps.load.burst import BURSTS, BURSTS_OVER_S, LEAVES


def plainest(spec: GraphSpec) -> list[Plan]:
    """Plans of one step, the plainest first.

    For each role, one plan kills its first replica, if the graph file lets that be drawn. Two more plans send the largest burst all at
    once. In the first, all clients wait for their answers. In the second, all clients leave early.
    """
    kills = (Kill(role.name, 0) for role in spec.roles)
    steps: list[Step] = [kill for kill in kills if spec.may_draw(kill)]
    steps += [Burst(max(BURSTS), min(BURSTS_OVER_S), leave) for leave in (0.0, max(LEAVES))]
    return [Plan((step,)) for step in steps]

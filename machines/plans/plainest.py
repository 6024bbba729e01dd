"""The plainest plans for a graph, against which the shrinker holds a minimal plan of several steps."""

from __future__ import annotations

from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Burst, Kill, Plan, Step
from graphquake.harness.spec.steps.burst import BURSTS, BURSTS_OVER_S, LEAVES


def plainest(spec: GraphSpec) -> list[Plan]:
    """Plans of one step, the plainest first.

    Each role loses its first replica, if the graph file lets kills be drawn. Or the largest burst comes at once, and its clients either
    wait or all leave.
    """
    steps: list[Step] = []
    if Kill.verb in spec.faults:
        steps += [Kill(role.name, 0) for role in spec.roles]
    steps += [Burst(max(BURSTS), min(BURSTS_OVER_S), leave) for leave in (0.0, max(LEAVES))]
    return [Plan((step,)) for step in steps]

"""Find out which kinds of steps are not possible for a graph in a cluster, and what is missing.

The kinds that are possible are listed, so a new kind is left out until somebody has made it work here.
"""

from __future__ import annotations

from typing import Final

from graphquake.harness.kubernetes.verbs import NEEDS_NODE, OWN_STEPS
from graphquake.harness.spec.faults import CUTS, LINK_FAULTS
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.steps.table import KINDS

# The faults that the API server alone can do and prove, and the one repair: a controller starts what is dead.
_POSSIBLE: Final = frozenset({"delete", "terminate", "interrupt", "respawn"})
# The faults of workloads.
_OF_WORKLOADS: Final = frozenset({"scale", "scale up", "rollout"})
OPERATOR: Final = "the operator of a DynamoGraphDeployment keeps the numbers of replicas"
CORDON: Final = "cordon"
# A node is not in a namespace, so the file must ask for it.
CORDON_HOW: Final = (
    "it acts on a node, outside of the namespace: write cordon = true into [kubernetes]"
)
# The faults that the agent can do besides.
_WITH_AGENT: Final = frozenset(
    {"kill", "stall", "stall part", "squeeze cpu", "squeeze memory", *LINK_FAULTS}
)
HOW: Final = 'write agent = "IMAGE" into [kubernetes]'
# What a cut and a partition can have in place of the agent, and why the other faults of the network can't.
OR_POLICIES: Final = 'or network = "policies" into the graph file'
BEYOND_POLICIES: Final = f'a NetworkPolicy can only cut: {HOW}, and network = "namespaces"'
NOT_THERE: Final = "not made for a cluster yet"


def lacking(spec: GraphSpec) -> dict[str, str]:
    """Return the kinds of steps that are not possible, by title, each with what is missing. Steps of the user's own count as kinds.

    Steps that only wait, or only send requests, need nothing of a cluster.
    """
    titles = {kind.title or kind.verb for kind in KINDS if not (kind.is_wait or kind.adds_load)}
    cluster = spec.cluster
    assert cluster is not None
    missing = {} if cluster.agent else dict.fromkeys(_WITH_AGENT, f"{NEEDS_NODE}: {HOW}")
    if spec.network == "policies":
        missing |= dict.fromkeys(LINK_FAULTS, BEYOND_POLICIES)
        missing = {title: said for title, said in missing.items() if title not in CUTS}
    elif missing:
        missing |= dict.fromkeys(CUTS, f"{NEEDS_NODE}: {HOW}, {OR_POLICIES}")
    if cluster.deployment:
        missing |= dict.fromkeys(("scale", "scale up"), OPERATOR)
    if not cluster.cordon:
        missing[CORDON] = CORDON_HOW
    possible = {*_POSSIBLE, *_WITH_AGENT, *_OF_WORKLOADS, CORDON}
    others = dict.fromkeys(titles - possible, NOT_THERE)
    return {**missing, **others, **dict.fromkeys(spec.own_steps, OWN_STEPS)}

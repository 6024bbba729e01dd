"""The table `[kubernetes]` of a graph file, and the keys of its roles: which pods of which cluster are the replicas.

Reading asks no cluster. Whether the namespace allows a run, and whether the pods exist, is checked when the graph is opened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from graphquake.harness.spec.table import Table, did_you_mean

# A name of an object or a namespace, as RFC 1123 allows it.
_DNS_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_PORT_MAX: Final = 65535
SCALE_MAX: Final = 256
# A context whose name holds one of these texts is refused, unless the file names the context.
REFUSED: Final = ("prod",)
# The labels that the operator of Dynamo gives to its pods, and the ports that its components listen on.
_DYNAMO_GRAPH: Final = "nvidia.com/dynamo-graph-deployment-name"
_DYNAMO_COMPONENT: Final = "nvidia.com/dynamo-component"
DYNAMO_PORTS: Final = {"http": 8000, "system": 9090}
# The keys of a role that say how a process is launched. A cluster launches its pods itself.
_LAUNCH_KEYS: Final = (
    "command", "cpu_ok", "disk_mib", "env", "files", "gpus", "install", "needs", "preload", "variants",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """Where a graph lives in a cluster.

    Attributes:
        namespace: the only namespace in which anything is changed. It must carry the label of consent.
        context: the context of the kubeconfig. Empty for its current one.
        deployment: the name of a `DynamoGraphDeployment`. Empty if each role has a label selector.
        refused: a context whose name holds one of these texts is refused.
        allowed: the names of contexts that are not refused.
        ready_s: the time that all pods get to become ready, in seconds.
        agent: the image of the agent, which kills, stalls and disturbs the network. Empty if none may be used.
        manifests: a file or a folder of manifests, relative to the graph file. They are applied into a namespace of their own for each
            graph that is opened. Empty if the graph is there already.
        cordon: true if nodes that carry the label of consent may be cordoned.
    """

    namespace: str
    context: str = ""
    deployment: str = ""
    refused: tuple[str, ...] = REFUSED
    allowed: tuple[str, ...] = ()
    ready_s: float = 600.0
    agent: str = ""
    manifests: str = ""
    cordon: bool = False


@dataclass(frozen=True, slots=True)
class PodsSpec:
    """The pods of a role.

    Attributes:
        select: a label selector.
        container: the name of the container whose lives are the incarnations. Empty for the first container.
        ports: ports of the pod by their names in templates such as `{address.http}`.
        scale_to: the largest number of replicas that a scale may give the role, or 0 if it may give no more than the file has.
    """

    select: str
    container: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
    scale_to: int = 0


def read_cluster(top: Table) -> ClusterSpec | None:
    """Read the table `[kubernetes]`. None if the file has none, so that its graph is launched on this machine.

    Raises:
        InputError: if a value is wrong, or another table of the file does not fit to a cluster.
    """
    if "kubernetes" not in top:
        return None
    table = top.table("kubernetes")
    for key in ("env", "preload", "restart"):
        if top.values.get(key):
            raise top.error(key, "is for graphs that are launched here, and this one has a table [kubernetes]")  # fmt: skip
    found = ClusterSpec(
        namespace=_dns_name(table, "namespace"),
        context=table.text("context", ""),
        deployment=_dns_name(table, "deployment") if "deployment" in table else "",
        refused=table.texts("refused") if "refused" in table else REFUSED,
        allowed=table.texts("allowed"),
        ready_s=table.number("ready_s", 600.0, at_least=1, at_most=7200),
        agent=table.text("agent", ""),
        manifests=table.text("manifests", ""),
        cordon=table.flag("cordon", default=False),
    )
    table.done()
    return found


def _dns_name(table: Table, key: str) -> str:
    name = table.text(key)
    if not _DNS_NAME.match(name):
        expected = "a name of Kubernetes: lower case letters, digits and -"
        raise table.error(key, f'found "{name}", expected {expected}')
    return name


def read_pods(table: Table, role: str, cluster: ClusterSpec | None) -> PodsSpec | None:
    """Read the keys of a role that choose its pods. None if the graph is launched on this machine.

    Args:
        table: the table of the role.
        role: the name of the role.
        cluster: the table `[kubernetes]` of the file, or None if it has none.

    Raises:
        InputError: if a value is wrong, or a key is about a launch on this machine.
    """
    if cluster is None:
        return None
    for key in _LAUNCH_KEYS:
        if key in table.values:
            raise table.error(key, "is for roles that are launched here, and this file has a table [kubernetes]")  # fmt: skip
    if "select" in table:
        select = table.text("select")
    elif cluster.deployment:
        component = table.text("component", role)
        select = f"{_DYNAMO_GRAPH}={cluster.deployment},{_DYNAMO_COMPONENT}={component}"
    else:
        raise table.error("select", 'is missing: a label selector such as "app=frontend", or kubernetes.deployment')  # fmt: skip
    ports: dict[str, int] = dict(DYNAMO_PORTS) if cluster.deployment else {}
    named = table.table("ports")
    for name in named:
        ports[name] = named.whole(name, at_least=1, at_most=_PORT_MAX)
    _check_ports(table, ports)
    scale_to = table.whole("scale_to", 0, at_least=0, at_most=SCALE_MAX)
    return PodsSpec(select, table.text("container", ""), ports, scale_to)


def _check_ports(table: Table, ports: Mapping[str, int]) -> None:
    """Check that a role declares each port of its own that one of its templates names. Only a declared port has a number."""
    for key, value in table.values.items():
        # The tables `ready` and `listed` hold templates, too.
        for name in re.findall(r"\{(?:port|address)\.(\w+)\}", str(value)):
            if name not in ports:
                near = did_you_mean(name, ports)
                raise table.error(
                    key, f'names the port "{name}", which "ports" does not give{near}'
                )

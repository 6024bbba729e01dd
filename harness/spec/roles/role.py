"""One role of a graph: its commands, replicas, probes, files and resources.

Reading checks a table `roles.NAME` alone. Rules between roles, such as the order of the start, are checked by `spec.graph` and
`start_order`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from graphquake.harness.spec.faults import read_faults
from graphquake.harness.spec.roles.cluster import ClusterSpec, PodsSpec, read_pods
from graphquake.harness.spec.roles.commands import check_preload, read_command, read_variants
from graphquake.harness.spec.roles.probes import Listed, Ready, read_listed, read_ready
from graphquake.harness.spec.roles.start_order import read_needs
from graphquake.harness.spec.steps.scope import SCOPE_NAMES
from graphquake.harness.spec.table import Table
from graphquake.harness.spec.templates.files import read_files
from graphquake.harness.spec.templates.words import check_words

# The largest number of replicas of one role: a graph with more does not fit on one machine.
REPLICAS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """One role of a graph.

    Attributes:
        name: the name of the role in the graph file.
        command: template of the command line. It is split as a shell splits it, and run without a shell.
        replicas: the number of replicas.
        entry: template of the base URL that clients send requests to. Empty if clients do not send requests to this role.
        ready: the readiness probe, or None if the role has none.
        listed: the list of live replicas that this role shows, or None if it shows none.
        env: environment variables for each replica: name -> template.
        children: child processes that a kill may aim at: name in plans -> process name.
        variants: other commands, which `roll ROLE as NAME` uses: name in plans -> template of the command line.
        dies_with: the names of the children whose death ends the replica by design.
        disk_mib: the size of a private disk for HOME and TMPDIR of each replica, in MiB, or 0 for ordinary folders.
        gpus: the number of GPUs that each replica gets for itself.
        preload: more Python modules for `GraphSpec.preload`, for this role alone.
        cpu_ok: true if the role runs without GPUs on a machine that has none.
        stop_s: the time that a replica may take to end after SIGTERM, in seconds. After that it gets SIGKILL.
        capacity: the number of requests that a replica serves at once, or 0 if it is not known. `{capacity}` in the command stands for it.
        metrics: template of the URL of a page in Prometheus text format. Empty if the role has no such page.
        files: the files that a launch writes for each replica: name -> template of the text.
        needs: the roles that must be ready before this role starts. A respawn does not wait for them.
        faults: the titles of the faults that a search may draw at this role. None if the list of the graph decides.
        install: the command that installs the role's program. An error about the role's start names it.
        pods: the pods that are the replicas, or None if replicas are launched.
    """

    name: str
    command: str
    replicas: int = 1
    entry: str = ""
    ready: Ready | None = None
    listed: Listed | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    children: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, str] = field(default_factory=dict)
    dies_with: tuple[str, ...] = ()
    disk_mib: int = 0
    gpus: int = 0
    cpu_ok: bool = False
    preload: tuple[str, ...] = ()
    stop_s: float = 10.0
    capacity: int = 0
    metrics: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    faults: tuple[str, ...] | None = None
    install: str = ""
    pods: PodsSpec | None = None

    @property
    def in_pods(self) -> bool:
        """True if the replicas are pods of a cluster."""
        return self.pods is not None

    @property
    def scales_to(self) -> int:
        """The largest number of replicas that a scale may give the role."""
        return max(self.replicas, self.pods.scale_to if self.pods else 0)


def read_role(
    name: str,
    table: Table,
    roles: Mapping[str, Table],
    own_faults: Sequence[str],
    cluster: ClusterSpec | None,
) -> RoleSpec:
    """Read a role from its table.

    Args:
        name: the name of the role.
        table: its table.
        roles: the tables of all roles, by name.
        own_faults: the names of the user's own steps that are faults.
        cluster: where the graph lives in a cluster, or None if it is launched.

    Raises:
        InputError: if a value is wrong.
    """

    def template(key: str) -> str:
        return check_words(table, key, table.text(key), roles) if key in table else ""

    files = read_files(table.table("files"), roles)
    pods = read_pods(table, name, cluster)
    command = "" if pods else read_command(table, roles, files)
    env = table.name_texts("env")
    for key, value in env.items():
        check_words(table.table("env"), key, value, roles, files=files)
    children, dies_with = _read_children(table)
    role = RoleSpec(
        name=name,
        command=command,
        replicas=table.whole("replicas", 1, at_least=1, at_most=REPLICAS_MAX),
        entry=template("entry"),
        ready=read_ready(table.table("ready"), roles) if "ready" in table else None,
        listed=read_listed(table.table("listed"), roles) if "listed" in table else None,
        env=env,
        children=children,
        variants=read_variants(table, roles, files),
        dies_with=dies_with,
        disk_mib=table.whole("disk_mib", 0, at_most=1 << 20),
        gpus=table.whole("gpus", 0, at_most=64),
        preload=table.texts("preload"),
        cpu_ok=table.flag("cpu_ok", default=False),
        stop_s=table.number("stop_s", 10.0, at_most=600),
        capacity=table.whole("capacity", 0, at_most=1_000_000),
        metrics=template("metrics"),
        files=files,
        needs=read_needs(table, roles),
        faults=read_faults(table, own_faults),
        install=table.text("install", ""),
        pods=pods,
    )
    if "{capacity}" in command and not role.capacity:
        raise table.error("capacity", "is missing, and the command asks for {capacity}")
    table.done()
    if role.preload:
        check_preload(table, role.name, role.command)
    return role


def _read_children(table: Table) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Return the patterns of the named children, and the names of those with which a replica dies.

    Raises:
        InputError: if a name is not allowed, or is not known.
    """
    children = table.name_texts("children")
    for key in children:
        if key in SCOPE_NAMES:
            raise table.table("children").error(
                key, "is the name of a scope of kill; choose another name"
            )
    dies_with = table.texts("dies_with")
    for child in dies_with:
        if child not in children:
            raise table.error(
                "dies_with", f'names "{child}", which is not one of the children of this role'
            )
    return children, dies_with

"""The graph file: roles, commands, readiness probes, load and promises, read into a `GraphSpec`.

Reading checks everything that can be checked without a start of a process, and without the environment variables. An error names the file,
the key, the value that was found, and a correct value. Reading keeps templates as they are: a launch fills in ports and folders (see
`templates`).
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from graphquake.harness.errors import InputError
from graphquake.harness.graphs.deployments import DEPLOYMENTS, deployment, is_deployment
from graphquake.harness.spec.bounds import Promises, read_promises
from graphquake.harness.spec.faults import read_graph_faults
from graphquake.harness.spec.load import LoadSpec, read_load
from graphquake.harness.spec.metrics import KNOWN_GAUGES, read_gauges
from graphquake.harness.spec.plan import Plan, Step, default_faults, parse_plan
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.roles.cluster import ClusterSpec, read_cluster
from graphquake.harness.spec.roles.commands import check_preload
from graphquake.harness.spec.roles.like import with_like
from graphquake.harness.spec.roles.role import RoleSpec, read_role
from graphquake.harness.spec.roles.start_order import check_order
from graphquake.harness.spec.serves import Serves, read_serves
from graphquake.harness.spec.steps.own.own_table import OwnStep, read_own_steps
from graphquake.harness.spec.steps.table import RESERVED
from graphquake.harness.spec.table import Table, did_you_mean
from graphquake.harness.spec.templates.files import with_file_texts
from graphquake.harness.spec.templates.network import Network, read_network
from graphquake.harness.spec.templates.words import check_words

Restart: TypeAlias = Literal["never", "always"]


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """A graph as its file describes it.

    Attributes:
        name: the name of the graph in output and cases.
        path: the graph file. Relative paths in the file start from its folder.
        document: the parsed TOML of the file. The folder of a run keeps it.
        serves: the roles that a request needs.
        env: environment variables for each replica of every role: name -> template.
        versions: commands that print a version, which a run records: name of the version -> template of the command line.
        python: the Python that runs commands with `{python}`.
        lease_s: the time for which the graph may list a dead replica, in seconds, or 0 if the graph has no leases.
        preload: Python modules that take long to import. Replicas are forked from a process that has imported these modules.
        share_gpus: true if several replicas may get the same GPU. The command line sets this value, not the file.
        faults: the titles of the faults that a search may draw. A graph that makes no promise under stalls leaves out `stall`. A role may
            have a list of its own.
        gauges: for each of `in_flight`, `waiting` and `kv_usage`, the possible gauge names in the graph's metrics.
        own_steps: the steps of the user's own in the table `[steps]` of the file, by name.
        scenarios: the plans in the table `[scenarios]` of the file, by name.
        restart: `always` if the supervisor restarts dead replicas, `never` if only a step or heal restarts them.
        restart_delay_s: the time that the supervisor waits before it restarts a replica, in seconds.
        network: `host` if the replicas use the network of this machine, `namespaces` if each has a network namespace and an address,
            `policies` if NetworkPolicies of a cluster may cut them off.
        lacks: the kinds of steps that are not possible on this machine, by title, each with the reason. The machine tells it, not the
            file (see `on_this_machine`).
        cluster: where the graph lives in a Kubernetes cluster, or None if it is launched.
    """

    name: str
    path: Path
    document: Mapping[str, Any]
    serves: Serves
    roles: tuple[RoleSpec, ...]
    load: LoadSpec
    promises: Promises
    env: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable
    lease_s: float = 0.0
    preload: tuple[str, ...] = ()
    share_gpus: bool = False
    faults: tuple[str, ...] = field(default_factory=default_faults)
    gauges: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: KNOWN_GAUGES)
    scenarios: Mapping[str, Plan] = field(default_factory=dict)
    own_steps: Mapping[str, OwnStep] = field(default_factory=dict)
    restart: Restart = "never"
    restart_delay_s: float = 0.0
    network: Network = "host"
    lacks: Mapping[str, str] = field(default_factory=dict)
    cluster: ClusterSpec | None = None

    def __hash__(self) -> int:
        # The mappings in a spec have no hash. Two specs are rarely compared, and are almost always the same object.
        return hash((self.name, self.path))

    @property
    def gpus(self) -> int:
        """The number of GPUs that all replicas of all roles need together."""
        return sum(role.gpus * role.replicas for role in self.roles)

    @property
    def is_shared(self) -> bool:
        """True if all runs use one graph that exists already, so that they can't go on side by side."""
        return self.cluster is not None and not self.cluster.manifests

    def role(self, name: str) -> RoleSpec:
        """Return the role with this name. Raise KeyError if the graph has no such role."""
        for role in self.roles:
            if role.name == name:
                return role
        raise KeyError(name)

    def faults_at(self, role: str) -> tuple[str, ...]:
        """Return the titles of the faults that a search may draw at a role on this machine. Raise KeyError if there is no such role."""
        return tuple(title for title in self._listed_at(role) if self._fits_at(title, role))

    def _listed_at(self, role: str) -> tuple[str, ...]:
        listed = self.role(role).faults
        return self.faults if listed is None else listed

    def _fits_at(self, title: str, role: str) -> bool:
        own = self.own_steps.get(title)
        return title not in self.lacks and (own is None or own.role == role)

    def may_draw(self, step: Step) -> bool:
        """True if a search may draw a step: it is not a fault, or the file allows this fault at every replica that the step aims at."""
        if not step.is_fault:
            return True
        if not step.roles:
            return step.called in self.faults
        # A draw asks this of each step at each replica, so it does not build the lists of `faults_at`.
        title = step.called
        return all(
            title in self._listed_at(role) and self._fits_at(title, role) for role in step.roles
        )

    @property
    def entry_role(self) -> RoleSpec:
        """The role that clients send requests to."""
        return next(role for role in self.roles if role.entry)

    @property
    def outage_shows_s(self) -> float:
        """The longest time for which the graph may still list a dead replica, in seconds: the lease plus the bound of `views_agree`."""
        return self.lease_s + self.promises.agree_s

    @property
    def ready_within_s(self) -> float:
        """The largest `within_s` of all readiness probes, in seconds, or 0 if no role has a readiness probe."""
        return max((role.ready.within_s for role in self.roles if role.ready), default=0.0)

    @property
    def shape(self) -> str:
        """The name and the number of replicas of each role in one line, e.g. `frontend 1, decode 2`."""
        return ", ".join(f"{role.name} {role.replicas}" for role in self.roles)

    def under(self, other: GraphSpec) -> GraphSpec:
        """This graph with the bounds and the load of another one, which describes the same graph."""
        return replace(
            self,
            document=other.document,
            lease_s=other.lease_s,
            promises=other.promises,
            load=other.load,
        )

    def replicas(self) -> list[Replica]:
        """Return every replica, in the order of the file."""
        return [Replica(role.name, index) for role in self.roles for index in range(role.replicas)]


# ------------------------------------------------------------------------------------------------------------ reading


def _read_scenarios(table: Table, own: Mapping[str, OwnStep]) -> dict[str, Plan]:
    found = {
        name: parse_plan(f"{table.source}: {table.key_path(name)}", table.texts(name), own)
        for name in table
    }
    table.done()
    return found


def read_graph(source: str, document: Mapping[str, Any], path: Path) -> GraphSpec:
    """Read a graph from its parsed file.

    Args:
        source: the beginning of each error message, usually a file name.
        document: the parsed TOML.
        path: the graph file. Relative paths in the file start from its folder.

    Raises:
        InputError: if a value is wrong. The error names the key, the value that was found and a correct value.
    """
    document = with_file_texts(source, document, path.parent)
    top = Table(source, document)
    name = top.text("graph")
    tables = with_like(top.name_tables("roles"))
    if not tables:
        raise top.error("roles", "is missing: a graph has at least one role")
    cluster = read_cluster(top)
    own = read_own_steps(top.name_tables("steps"), RESERVED, tables)
    own_faults = [one.name for one in own.values() if one.fault]
    roles = tuple(
        read_role(one, table, tables, own_faults, cluster) for one, table in tables.items()
    )
    check_order(top, {role.name: role.needs for role in roles})
    if (count := sum(bool(role.entry) for role in roles)) != 1:
        raise top.error(
            "roles", f"found {count} roles with an entry, expected one that clients talk to"
        )
    serves = read_serves(top, tables)
    env = top.name_texts("env")
    for key, value in env.items():
        check_words(top.table("env"), key, value, tables)
    python = top.text("python", sys.executable)
    spec = GraphSpec(
        name=name,
        path=path,
        document=document,
        serves=serves,
        roles=roles,
        load=read_load(top.table("load")),
        promises=read_promises(top.table("promises")),
        env=env,
        versions=top.name_texts("versions"),
        # A Python with a slash is a path, relative to the folder of the file. A bare name is looked up on the PATH.
        python=str(path.parent / python) if "/" in python else python,
        lease_s=top.number("lease_s", 0.0, at_most=3600),
        preload=top.texts("preload"),
        faults=read_graph_faults(top, own_faults, some_at_roles=any(role.faults for role in roles)),
        gauges=read_gauges(top.table("gauges")),
        own_steps=own,
        scenarios=_read_scenarios(top.table("scenarios"), own),
        network=read_network(top, tables),
        restart="always" if cluster else top.choice("restart", get_args(Restart), "never"),
        restart_delay_s=top.number("restart_delay_s", 0.0, at_most=3600),
        cluster=cluster,
    )
    top.done()
    for role in roles if spec.preload else ():
        check_preload(top, role.name, role.command)
    return spec


def built_in_graphs() -> dict[str, Path]:
    """Return the graphs that come with Graphquake: name -> graph file."""
    folder = Path(str(resources.files("graphquake.harness.graphs"))).resolve()
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_graph(name: str, *, share_gpus: bool = False, network: str = "") -> GraphSpec:
    """Read a ready-made graph, a deployment (see `deployments`), or a graph file.

    Args:
        name: the name of a ready-made graph or a deployment, or the path of a graph file.
        share_gpus: true if several replicas may get the same GPU.
        network: the value of the key `network`, or an empty text if the file decides.

    Raises:
        InputError: if the graph does not exist, or its file is wrong.
    """
    built_in = built_in_graphs()
    if is_deployment(name):
        base = built_in["reference"]
        document = deployment(name, tomllib.loads(base.read_text(encoding="utf-8")))
        return replace(_read(name, document, base, network), share_gpus=share_gpus)
    path = built_in.get(name) or Path(name)
    if not path.is_file():
        if path.suffix == ".toml" or "/" in name:
            raise InputError(f"{name}: no such file")
        raise InputError(
            f'graph "{name}": found neither a ready-made graph nor a file of that name{did_you_mean(name, [*built_in, *DEPLOYMENTS])}'
        )
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name}: is not valid TOML: {error}") from None
    spec = _read(path.name, document, path.resolve(), network)
    return replace(spec, share_gpus=share_gpus)


def _read(source: str, document: Mapping[str, Any], path: Path, network: str) -> GraphSpec:
    """Read a graph. The network of the command line replaces that of the file, also in the document, which the folder of a run keeps."""
    return read_graph(source, {**document, "network": network} if network else document, path)

"""The graph file: roles, commands, readiness probes, load and promises, read into a `GraphSpec`.

Reading checks everything that can be checked without a start of a process, and without the environment variables. An error names the file,
the key, the value that was found, and a correct value. Reading keeps templates as they are: a launch fills in ports and folders (see
`templates`).
"""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from graphquake.harness.errors import InputError
from graphquake.harness.graphs.deployments import DEPLOYMENTS, deployment, is_deployment
from graphquake.harness.spec.bounds import Promises, read_promises
from graphquake.harness.spec.faults import read_faults
from graphquake.harness.spec.load import LoadSpec, read_load
from graphquake.harness.spec.metrics import KNOWN_GAUGES, read_gauges
from graphquake.harness.spec.plan import Plan, Step, fault_verbs, parse_plan
from graphquake.harness.spec.probes import Listed, Ready, read_listed, read_ready
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.serves import Serves, parse_serves
from graphquake.harness.spec.start_order import check_order, read_needs
from graphquake.harness.spec.steps.own.own_table import OwnStep, read_own_steps
from graphquake.harness.spec.steps.scope import SCOPE_NAMES
from graphquake.harness.spec.steps.table import verbs as step_verbs
from graphquake.harness.spec.table import Table, did_you_mean
from graphquake.harness.spec.templates.files import read_files, with_file_texts
from graphquake.harness.spec.templates.words import check_words

# The largest number of replicas of one role: a graph with more does not fit on one machine.
REPLICAS_MAX: Final = 256

Restart: TypeAlias = Literal["never", "always"]


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
        dies_with: the names of the children whose death ends the replica by design.
        gpus: the number of GPUs that each replica gets for itself.
        preload: more Python modules for `GraphSpec.preload`, for this role alone.
        cpu_ok: true if the role runs without GPUs on a machine that has none.
        stop_s: the time that a replica may take to end after SIGTERM, in seconds. After that it gets SIGKILL.
        capacity: the number of requests that a replica serves at once, or 0 if it is not known. `{capacity}` in the command stands for it.
        metrics: template of the URL of a page in Prometheus text format. Empty if the role has no such page.
        files: the files that a launch writes for each replica: name -> template of the text.
        needs: the roles that must be ready before this role starts. A respawn does not wait for them.
        faults: the verbs of the faults that a search may draw at this role. None if the list of the graph decides.
        install: the command that installs the role's program. An error about the role's start names it.
    """

    name: str
    command: str
    replicas: int = 1
    entry: str = ""
    ready: Ready | None = None
    listed: Listed | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    children: Mapping[str, str] = field(default_factory=dict)
    dies_with: tuple[str, ...] = ()
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
        faults: the verbs of the faults that a search may draw. A graph that promises nothing under stalls leaves out `stall`. A role may
            have a list of its own.
        gauges: for each of `in_flight`, `waiting` and `kv_usage`, the possible gauge names in the graph's metrics.
        own_steps: the steps of the user's own in the table `[steps]` of the file, by name.
        scenarios: the plans in the table `[scenarios]` of the file, by name.
        restart: `always` if the supervisor restarts dead replicas, `never` if only a step or heal restarts them.
        restart_delay_s: the time that the supervisor waits before it restarts a replica, in seconds.
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
    faults: tuple[str, ...] = field(default_factory=fault_verbs)
    gauges: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: KNOWN_GAUGES)
    scenarios: Mapping[str, Plan] = field(default_factory=dict)
    own_steps: Mapping[str, OwnStep] = field(default_factory=dict)
    restart: Restart = "never"
    restart_delay_s: float = 0.0

    def __hash__(self) -> int:
        # The mappings in a spec have no hash. Two specs are rarely compared, and are almost always the same object.
        return hash((self.name, self.path))

    @property
    def gpus(self) -> int:
        """The number of GPUs that all replicas of all roles need together."""
        return sum(role.gpus * role.replicas for role in self.roles)

    def role(self, name: str) -> RoleSpec:
        """Return the role with this name. Raise KeyError if the graph has no such role."""
        for role in self.roles:
            if role.name == name:
                return role
        raise KeyError(name)

    def faults_at(self, role: str) -> tuple[str, ...]:
        """Return the verbs of the faults that a search may draw at a role. Raise KeyError if the graph has no such role."""
        listed = self.role(role).faults
        verbs = self.faults if listed is None else listed
        own = self.own_steps
        return tuple(verb for verb in verbs if verb not in own or own[verb].role == role)

    def may_draw(self, step: Step) -> bool:
        """True if a search may draw a step: it is not a fault, or the file allows this fault at every replica that the step aims at."""
        if not step.is_fault:
            return True
        if not step.aims:
            return step.verb in self.faults
        return all(step.verb in self.faults_at(one.role) for one in step.aims)

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

    def replicas(self) -> list[Replica]:
        """Return every replica, in the order of the file."""
        return [Replica(role.name, index) for role in self.roles for index in range(role.replicas)]


# ------------------------------------------------------------------------------------------------------------ reading


def _read_command(table: Table, roles: Mapping[str, Table], files: Iterable[str]) -> str:
    command = table.text("command")
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise table.error("command", f"can't be split as a shell splits it: {error}") from None
    return check_words(table, "command", command, roles, files=files, parts=arguments)


def _read_role(
    name: str, table: Table, roles: Mapping[str, Table], faults: Sequence[str]
) -> RoleSpec:
    def template(key: str) -> str:
        return check_words(table, key, table.text(key), roles) if key in table else ""

    files = read_files(table.table("files"), roles)
    command = _read_command(table, roles, files)
    env = table.name_texts("env")
    for key, value in env.items():
        check_words(table.table("env"), key, value, roles, files=files)
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
    role = RoleSpec(
        name=name,
        command=command,
        replicas=table.whole("replicas", 1, at_least=1, at_most=REPLICAS_MAX),
        entry=template("entry"),
        ready=read_ready(table.table("ready"), roles) if "ready" in table else None,
        listed=read_listed(table.table("listed"), roles) if "listed" in table else None,
        env=env,
        children=children,
        dies_with=dies_with,
        gpus=table.whole("gpus", 0, at_most=64),
        preload=table.texts("preload"),
        cpu_ok=table.flag("cpu_ok", default=False),
        stop_s=table.number("stop_s", 10.0, at_most=600),
        capacity=table.whole("capacity", 0, at_most=1_000_000),
        metrics=template("metrics"),
        files=files,
        needs=read_needs(table, roles),
        faults=read_faults(table, faults),
        install=table.text("install", ""),
    )
    if "{capacity}" in command and not role.capacity:
        raise table.error("capacity", "is missing, and the command asks for {capacity}")
    table.done()
    if role.preload:
        _check_preload(table, role)
    return role


def _check_preload(table: Table, role: RoleSpec) -> None:
    """Check that the command of a role with `preload` runs a Python module or script. A forked Python can run nothing else."""
    if not re.match(r"\{python\} (-m\s|[^-])", role.command):
        begins = 'begins with "{python} -m MODULE" or "{python} SCRIPT"'
        raise table.error(
            "preload", f"needs a command that {begins}; the command of {role.name} does not"
        )


def _with_like(tables: Mapping[str, Table]) -> dict[str, Table]:
    """Return the table of each role. If it has the key `like`, its missing keys come from the table of the role that `like` names."""
    found = {}
    for name, table in tables.items():
        if "like" not in table:
            found[name] = table
            continue
        other = table.text("like")
        if other not in tables or other == name:
            rest = [role for role in tables if role != name]
            raise table.error(
                "like", f'names "{other}", which is not another role{did_you_mean(other, rest)}'
            )
        if "like" in tables[other]:
            raise table.error(
                "like", f'names "{other}", which itself has "like": only one level is read'
            )
        merged = {**tables[other].values, **table.values}
        del merged["like"]
        found[name] = Table(table.source, merged, table.path)
    return found


def _read_scenarios(table: Table, own: Mapping[str, OwnStep]) -> dict[str, Plan]:
    found = {
        name: parse_plan(f"{table.source}: {table.key_path(name)}", table.texts(name), own)
        for name in table
    }
    table.done()
    return found


def _read_graph_faults(
    top: Table, verbs: tuple[str, ...], roles: Iterable[RoleSpec]
) -> tuple[str, ...]:
    """Read the list `faults` of the whole graph. It may be empty only if the list of some role is not."""
    faults = read_faults(top, verbs)
    if faults == () and not any(role.faults for role in roles):
        some = f"expected some of {', '.join(verbs)}"
        raise top.error("faults", f"is empty, and so is the list of every role; {some}")
    return verbs if faults is None else faults


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
    tables = _with_like(top.name_tables("roles"))
    if not tables:
        raise top.error("roles", "is missing: a graph has at least one role")
    own = read_own_steps(top.name_tables("steps"), step_verbs(), tables)
    verbs = (*fault_verbs(), *(one.name for one in own.values() if one.fault))
    roles = tuple(_read_role(role, table, tables, verbs) for role, table in tables.items())
    check_order(top, {role.name: role.needs for role in roles})
    entries = [role.name for role in roles if role.entry]
    if len(entries) != 1:
        raise top.error(
            "roles", f"found {len(entries)} roles with an entry, expected one that clients talk to"
        )
    try:
        serves = parse_serves(top.text("serves", " and ".join(tables)), tables)
    except ValueError as error:
        raise top.error("serves", str(error)) from None
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
        faults=_read_graph_faults(top, verbs, roles),
        gauges=read_gauges(top.table("gauges")),
        own_steps=own,
        scenarios=_read_scenarios(top.table("scenarios"), own),
        restart=top.choice("restart", get_args(Restart), "never"),
        restart_delay_s=top.number("restart_delay_s", 0.0, at_most=3600),
    )
    top.done()
    for role in roles if spec.preload else ():
        _check_preload(top, role)
    return spec


def built_in_graphs() -> dict[str, Path]:
    """Return the graphs that come with Graphquake: name -> graph file."""
    folder = Path(str(resources.files("graphquake.harness.graphs"))).resolve()
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_graph(name: str, *, share_gpus: bool = False) -> GraphSpec:
    """Read a ready-made graph, a deployment (see `deployments`), or a graph file.

    Args:
        name: the name of a ready-made graph or a deployment, or the path of a graph file.
        share_gpus: true if several replicas may get the same GPU.

    Raises:
        InputError: if the graph does not exist, or its file is wrong.
    """
    built_in = built_in_graphs()
    if is_deployment(name):
        base = built_in["reference"]
        document = deployment(name, tomllib.loads(base.read_text(encoding="utf-8")))
        return replace(read_graph(name, document, base), share_gpus=share_gpus)
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
    return replace(read_graph(path.name, document, path.resolve()), share_gpus=share_gpus)

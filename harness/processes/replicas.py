"""The replicas of a launched graph: their ports, GPUs, command lines, environments, and incarnations."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from graphquake.harness.errors import GraphError
from graphquake.harness.history.events import exit_text
from graphquake.harness.processes.gpus import visible_gpus
from graphquake.harness.processes.guard_client import Child
from graphquake.harness.processes.reservations import Reservations
from graphquake.harness.spec.environment import check_environment
from graphquake.harness.spec.graph import GraphSpec, RoleSpec
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.templates import expand

# The variables of the harness's environment that a replica receives. All others come from the graph file.
PASSED_ON: Final = ("PATH", "CUDA_VISIBLE_DEVICES")
_PORT: Final = re.compile(r"\{(?:([A-Za-z_][\w-]*)\.)?port\.(\w+)\}")


@dataclass(slots=True)
class Incarnation:
    """One life of a replica, from the start of its main process to the end of that process.

    Attributes:
        number: the number of earlier incarnations of the replica.
        key: a name that is unique within the graph. The guard reports the exit under this key, and the processes carry it as a mark.
        log: the file with the output of the processes.
        child: the main process.
        aimed: true after a step, or heal, sent SIGKILL or SIGTERM to the main process.
        terminating: true after the main process got SIGTERM, or after a step killed a child that the replica depends on (`dies_with`).
        stalled: true from SIGSTOP to SIGCONT.
        status: the exit code of the main process, or minus the number of the signal that ended it. None while it runs.
        ended_s: the monotonic time of the end of the main process.
        ready: set when the readiness probe has passed.
        ended: set when the main process has ended.
    """

    number: int
    key: str
    log: Path
    child: Child
    aimed: bool = False
    terminating: bool = False
    stalled: bool = False
    status: int | None = None
    ended_s: float = float("nan")
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def runs(self) -> bool:
        """True while the main process runs."""
        return self.status is None

    @property
    def how_it_ended(self) -> str:
        """The exit status or the signal, in words."""
        assert self.status is not None
        return f"{'died of' if self.status < 0 else 'ended with'} {exit_text(self.status)}"


@dataclass(slots=True)
class ReplicaState:
    """The state of one replica, which has one incarnation after another.

    Attributes:
        ports: the reserved ports, by their names in the graph file.
        gpus: the GPUs of the replica, as CUDA_VISIBLE_DEVICES names them.
        now: the latest incarnation, running or not, or None before the first.
        begun: the number of incarnations so far.
        spawning: a lock that is held while an incarnation is being started. Two incarnations at once would compete for one port.
    """

    role: RoleSpec
    index: int
    ports: dict[str, int] = field(default_factory=dict)
    gpus: list[str] = field(default_factory=list)
    now: Incarnation | None = None
    begun: int = 0
    spawning: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> Replica:
        """The role and the index of the replica."""
        return Replica(self.role.name, self.index)

    @property
    def running(self) -> Incarnation | None:
        """The incarnation that runs now, or None if the replica is dead."""
        return self.now if self.now is not None and self.now.runs else None

    @property
    def is_ready(self) -> bool:
        """True if the replica runs, has passed its readiness probe, and is not stalled."""
        running = self.running
        return running is not None and running.ready.is_set() and not running.stalled

    @property
    def is_ending(self) -> bool:
        """True while the replica shuts down: it is terminating, and its main process has not exited yet."""
        return self.running is not None and self.running.terminating

    @property
    def works(self) -> bool:
        """True if the replica is ready and not shutting down."""
        return self.is_ready and not self.is_ending


@dataclass(slots=True)
class Layout:
    """The replicas of a graph, with the ports, command line and environment of each.

    Attributes:
        spec: the graph, as its file describes it.
        run_dir: the graph's own folder. The path is made absolute.
        replicas: the state of each replica, in the order of the graph file.

    Raises:
        InputError: if an environment variable that the graph file asks for is not set.
    """

    spec: GraphSpec
    run_dir: Path
    replicas: dict[Replica, ReplicaState] = field(init=False)

    def __post_init__(self) -> None:
        check_environment(self.spec)
        self.run_dir = self.run_dir.resolve()
        self.replicas = {
            Replica(role.name, index): ReplicaState(role, index)
            for role in self.spec.roles
            for index in range(role.replicas)
        }

    def of_role(self, name: str) -> Iterator[ReplicaState]:
        """The replicas of a role, in the order of their index."""
        return (replica for replica in self.replicas.values() if replica.role.name == name)

    def reserve(self, reservations: Reservations) -> None:
        """Reserve ports and GPUs for every replica, and make the folders `logs`, `home` and `tmp` of the graph.

        Raises:
            GraphError: if there are not enough free ports or GPUs.
        """
        for name in ("logs", "home", "tmp"):
            (self.run_dir / name).mkdir(parents=True, exist_ok=True)
        names = self._port_names()
        for replica in self.replicas.values():
            role = replica.role
            try:
                replica.ports = {name: reservations.port() for name in sorted(names[role.name])}
                if role.gpus and not (role.cpu_ok and not visible_gpus()):
                    replica.gpus = reservations.gpus(role.gpus, share=self.spec.share_gpus)
            except GraphError as error:
                raise GraphError(f"{self.spec.path.name}: roles.{role.name}: {error}") from None

    def _port_names(self) -> dict[str, set[str]]:
        """The names of the ports of each role: all names that any template of the graph mentions."""
        names: dict[str, set[str]] = {role.name: set() for role in self.spec.roles}
        for role in self.spec.roles:
            for template in _templates(self.spec, role):
                for other, name in _PORT.findall(template):
                    names[other or role.name].add(name)
        return names

    def fill(self, replica: ReplicaState, template: str) -> str:
        """Replace the words of a template by their values for one replica (see `templates`)."""
        return expand(template, lambda word: self._value(replica, word))

    def _value(self, replica: ReplicaState, word: str) -> str:
        role, _, port = word.rpartition("port.")
        if port and role:
            return ",".join(str(other.ports[port]) for other in self.of_role(role.rstrip(".")))
        if port and word.startswith("port."):
            return str(replica.ports[port])
        if word == "entry":
            # The entry of the replica itself if its role has one, otherwise the entry of the first replica of the entry role.
            own = bool(replica.role.entry)
            owner = replica if own else next(self.of_role(self.spec.entry_role.name))
            return self.fill(owner, owner.role.entry)
        # All words were checked when the graph file was read, so any other word is in this table.
        values: dict[str, object] = {
            "python": self.spec.python,
            "model": self.spec.load.model,
            "run_dir": self.run_dir,
            "graph_dir": self.spec.path.parent,
            "role": replica.role.name,
            "index": replica.index,
            "capacity": replica.role.capacity,
        }
        return str(values[word])

    def command(self, replica: ReplicaState) -> list[str]:
        """The command line of a replica. The template is split before it is filled in, because a folder may have a space in its name."""
        argv = [self.fill(replica, word) for word in shlex.split(replica.role.command)]
        if "/" in argv[0]:
            argv[0] = str(self.spec.path.parent / argv[0])
        return argv

    def environment(self, replica: ReplicaState) -> dict[str, str]:
        """The whole environment of a replica, except the marks `OWNER` and `REPLICA`."""
        found = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        found |= {
            "HOME": str(self.run_dir / "home"),
            "TMPDIR": str(self.run_dir / "tmp"),
            "LANG": "C.UTF-8",
        }
        if replica.role.gpus:
            found["CUDA_VISIBLE_DEVICES"] = ",".join(replica.gpus)
        for name, template in {**self.spec.env, **replica.role.env}.items():
            found[name] = self.fill(replica, template)
        return found


def _templates(spec: GraphSpec, role: RoleSpec) -> Iterator[str]:
    yield from (role.command, role.entry, role.metrics)
    yield from {**spec.env, **role.env}.values()
    if role.ready:
        yield role.ready.get
    if role.listed:
        yield role.listed.get

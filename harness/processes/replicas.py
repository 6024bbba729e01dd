"""The replicas of a launched graph: ports, GPUs, command lines, environments, and incarnations."""

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
    """One process life of a replica.

    Attributes:
        key: unique within the graph. The guard reports its exit under this key, and its processes carry it as a mark.
        aimed: a step was aimed at it.
        terminating: it was sent SIGTERM, or lost a child that it depends on.
        stalled: it was stopped and not yet resumed.
        status: an exit code, or minus the number of the signal that ended it. None while it runs.
        ended_s: the monotonic time of its end.
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
        """True while its main process runs."""
        return self.status is None

    @property
    def how_it_ended(self) -> str:
        """The exit status or the signal, in words."""
        assert self.status is not None
        return f"{'died of' if self.status < 0 else 'ended with'} {exit_text(self.status)}"


@dataclass(slots=True)
class ReplicaState:
    """A place in the graph, filled by one incarnation after the other.

    Attributes:
        now: the latest incarnation, running or not, or None before the first.
        begun: the number of incarnations so far.
        spawning: held while an incarnation is being started. Two at once would compete for one port.
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
        """Its role and its index."""
        return Replica(self.role.name, self.index)

    @property
    def running(self) -> Incarnation | None:
        """The incarnation that runs now, or None if the replica is dead."""
        return self.now if self.now is not None and self.now.runs else None

    @property
    def is_ready(self) -> bool:
        """True if it runs, has passed its readiness probe, and is not stalled."""
        running = self.running
        return running is not None and running.ready.is_set() and not running.stalled

    @property
    def is_ending(self) -> bool:
        """True while it shuts down: it is terminating, and its main process has not exited yet."""
        return self.running is not None and self.running.terminating

    @property
    def works(self) -> bool:
        """True if it is ready and not shutting down."""
        return self.is_ready and not self.is_ending


@dataclass(slots=True)
class Layout:
    """The replicas of a graph, with the ports, command line and environment of each.

    Attributes:
        run_dir: the graph's own folder. It is made absolute.

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
        """Give every replica its ports and GPUs, and make the folders.

        Raises:
            GraphError: if there are not enough of them.
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
        """Fill in a template for one replica."""
        return expand(template, lambda word: self._value(replica, word))

    def _value(self, replica: ReplicaState, word: str) -> str:
        role, _, port = word.rpartition("port.")
        if port and role:
            return ",".join(str(other.ports[port]) for other in self.of_role(role.rstrip(".")))
        if port and word.startswith("port."):
            return str(replica.ports[port])
        if word == "entry":
            # Its own entry if its role has one, otherwise that of the first entry replica.
            own = bool(replica.role.entry)
            owner = replica if own else next(self.of_role(self.spec.entry_role.name))
            return self.fill(owner, owner.role.entry)
        # Every other word was checked when the graph file was read.
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
        """The command line of a replica. Words are split before they are filled in, because a folder's name may have a space."""
        argv = [self.fill(replica, word) for word in shlex.split(replica.role.command)]
        if "/" in argv[0]:
            argv[0] = str(self.spec.path.parent / argv[0])
        return argv

    def environment(self, replica: ReplicaState) -> dict[str, str]:
        """The whole environment of a replica, without the marks."""
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

"""The ports, GPUs, files, command line and environment with which each replica of a launched graph starts."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from graphquake.harness.errors import GraphError
from graphquake.harness.processes.network.addresses import address_of
from graphquake.harness.processes.replicas import ReplicaState
from graphquake.harness.processes.resources.gpus import visible_gpus
from graphquake.harness.processes.resources.reservations import Reservations
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.roles.role import RoleSpec
from graphquake.harness.spec.templates.environment import check_environment, templates_of
from graphquake.harness.spec.templates.files import render
from graphquake.harness.spec.templates.words import (
    Word,
    expand,
    parse_word,
    repeated_role,
    words_in,
)

# The variables of the harness's environment that a replica receives. All others come from the graph file.
PASSED_ON: Final = ("PATH", "CUDA_VISIBLE_DEVICES")
# The subfolder of a graph's folder for the files that the graph file describes. A subfolder for each replica is in it.
FILES: Final = "files"
# The subfolder in which the private disks of replicas are mounted.
DISKS: Final = "disks"


class Resources(Protocol):
    """Gives ports and GPUs to replicas. `Reservations` is one."""

    def port(self) -> int:
        """Return a port that nothing else uses."""
        ...

    def gpus(self, count: int, *, share: bool = False) -> list[str]:
        """Return so many GPUs, by their names in CUDA_VISIBLE_DEVICES."""
        ...


@dataclass(slots=True)
class Layout:
    """The replicas of a graph, with the ports, files, command line and environment of each.

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
        """Reserve ports and GPUs for every replica, make the graph's folders, and write the files of every replica.

        The folders are `logs`, `home` and `tmp`. Files are written once, as in a deployment: a program may change its own file, and finds
        the changed one after a respawn.

        Raises:
            GraphError: if there are not enough free ports or GPUs.
        """
        for name in ("logs", "home", "tmp"):
            (self.run_dir / name).mkdir(parents=True, exist_ok=True)
        self.assign(reservations)
        for path, text in self.rendered_files():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def assign(self, reservations: Resources) -> None:
        """Give every replica its address, its ports and GPUs.

        Raises:
            GraphError: if there are not enough free ports or GPUs.
        """
        names = self._port_names()
        for place, replica in enumerate(self.replicas.values()):
            role = replica.role
            if self.spec.network == "namespaces":
                replica.host = address_of(place)
            try:
                replica.ports = {name: reservations.port() for name in sorted(names[role.name])}
                if role.gpus and not (role.cpu_ok and not visible_gpus()):
                    replica.gpus = reservations.gpus(role.gpus, share=self.spec.share_gpus)
            except GraphError as error:
                raise GraphError(f"{self.spec.path.name}: roles.{role.name}: {error}") from None

    def rendered_files(self) -> Iterator[tuple[Path, str]]:
        """Yield the path and the text of each file that a launch writes."""
        for replica in self.replicas.values():
            for name, template in replica.role.files.items():
                lines = partial(self._fill_each, replica, environment=False)
                yield self._file(replica, name), render(template, lines)

    def _port_names(self) -> dict[str, set[str]]:
        """The names of the ports of each role: all names that any template of the graph mentions."""
        names: dict[str, set[str]] = {role.name: set() for role in self.spec.roles}
        for role in self.spec.roles:
            for template in self._templates(role):
                for word in filter(None, map(parse_word, words_in(template))):
                    if word.what in ("port", "address"):
                        names[word.role or role.name].add(word.name)
        return names

    def _templates(self, role: RoleSpec) -> Iterator[str]:
        yield from self.spec.env.values()
        yield from (template for _, template in templates_of(role))
        yield from role.files.values()
        # The words about no role belong to the role at which the step aims. A step without a role has no such words.
        for one in self.spec.own_steps.values():
            if one.role in ("", role.name):
                yield from one.commands().values()

    def _file(self, replica: ReplicaState, name: str) -> Path:
        return self.run_dir / FILES / f"{replica.role.name}-{replica.index}" / name

    def disk(self, replica: ReplicaState) -> Path:
        """The folder at which the private disk of a replica is mounted, if it has one."""
        return self.run_dir / DISKS / f"{replica.role.name}-{replica.index}"

    # ------------------------------------------------------------------------------------------------------ filling in

    def fill(
        self,
        replica: ReplicaState,
        template: str,
        *,
        each: ReplicaState | None = None,
        environment: bool = True,
    ) -> str:
        """Replace the words of a template by their values for one replica (see `words`).

        Args:
            replica: the replica that the template belongs to.
            template: the text.
            each: the replica that `*` stands for.
            environment: if false, `${NAME}` passes unchanged.
        """

        def value(text: str) -> str:
            # All words were checked when the graph file was read.
            word = parse_word(text)
            assert word is not None
            if not word.role:
                return self._value(replica, word)
            if word.each:
                assert each is not None
                return self._value(each, word)
            if word.index is not None:
                return self._value(self.replicas[Replica(word.role, word.index)], word)
            values = (self._value(other, word) for other in self.of_role(word.role))
            return word.separator.join(f"{word.prefix}{value}" for value in values)

        return expand(template, value, environment=environment)

    def _fill_each(
        self, replica: ReplicaState, template: str, *, environment: bool = True
    ) -> list[str]:
        """Fill in a template. If it has a word with `*`, fill it in for each replica of that role."""
        role = repeated_role(template)
        repeated = self.of_role(role) if role else [None]
        return [
            self.fill(replica, template, each=each, environment=environment) for each in repeated
        ]

    def _value(self, replica: ReplicaState, word: Word) -> str:
        """The value of a word for the replica that it is about."""
        match word.what:
            case "port":
                return str(replica.ports[word.name])
            case "address":
                return f"{replica.host}:{replica.ports[word.name]}"
            case "file":
                return str(self._file(replica, word.name))
            case "entry":
                # The entry of the replica itself if its role has one, otherwise the entry of the first replica of the entry role.
                own = bool(replica.role.entry)
                owner = replica if own else next(self.of_role(self.spec.entry_role.name))
                return self.fill(owner, owner.role.entry)
        values: dict[str, object] = {
            "python": self.spec.python,
            "model": self.spec.load.model,
            "run_dir": self.run_dir,
            "graph_dir": self.spec.path.parent,
            "role": replica.role.name,
            "index": replica.index,
            "capacity": replica.role.capacity,
            "host": replica.host,
        }
        return str(values[word.what])

    def command(self, replica: ReplicaState) -> list[str]:
        """The command line of a replica. The template is split before it is filled in, because a folder may have a space in its name."""
        role = replica.role
        split = shlex.split(role.variants[replica.variant] if replica.variant else role.command)
        argv = [word for part in split for word in self._fill_each(replica, part)]
        if "/" in argv[0]:
            argv[0] = str(self.spec.path.parent / argv[0])
        return argv

    def own_command(self, replica: ReplicaState, template: str) -> list[str]:
        """The command line of a step of the user's own, for the replica that it aims at. `{pid}` is the replica's main process."""
        pid = str(replica.running.child.pid) if replica.running else ""
        split = (part.replace("{pid}", pid) for part in shlex.split(template))
        argv = [word for part in split for word in self._fill_each(replica, part)]
        if "/" in argv[0]:
            argv[0] = str(self.spec.path.parent / argv[0])
        return argv

    def preload(self, replica: ReplicaState) -> tuple[str, ...]:
        """The modules to import beforehand. Those of the role are left out if it wants GPUs and the replica got none.

        A replica with a private disk is not forked: its process has to enter a namespace before it runs its program.
        """
        role = replica.role
        if replica.has_disk:
            return ()
        own = () if role.gpus and not replica.gpus else role.preload
        return (*self.spec.preload, *own)

    def environment(self, replica: ReplicaState) -> dict[str, str]:
        """The whole environment of a replica, except the marks `OWNER` and `REPLICA`."""
        found = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        found |= {
            "HOME": str((self.disk(replica) if replica.has_disk else self.run_dir) / "home"),
            "TMPDIR": str((self.disk(replica) if replica.has_disk else self.run_dir) / "tmp"),
            "LANG": "C.UTF-8",
        }
        if replica.role.gpus:
            found["CUDA_VISIBLE_DEVICES"] = ",".join(replica.gpus)
        for name, template in {**self.spec.env, **replica.role.env}.items():
            found[name] = self.fill(replica, template)
        return found

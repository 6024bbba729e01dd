"""The steps `squeeze`: for a time, a replica gets only a little of a resource.

Each resource is a kind of its own, because a machine may be able to squeeze one and not another. The step lands when the kernel shows the
effect. For the model and the judge, the replica does not work meanwhile. The answers of the graph about the replica are not judged in that
time: both `ready` and `not ready` can be defended.

A search draws squeezes only if the list `faults` of the graph file names them. They tell little about a graph that makes no promise under
such conditions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, Scene, Squeezable
from graphquake.harness.spec.steps.kind import (
    ROLE,
    SECONDS,
    WAIT_MAX_S,
    Aimed,
    Draft,
    Effect,
    Pick,
    Rule,
    Step,
    number,
)
from graphquake.harness.spec.steps.knob import Knob
from graphquake.harness.spec.steps.model import Graph, GraphModel, Role
from graphquake.harness.spec.steps.processes.stall import lengths_s

# The shortest squeeze that is drawn, in seconds.
SHORTEST_S: Final = 1.2
# The shares of a core and the amounts of memory in MiB that a draw chooses among.
SHARES: Final = (5, 20)
ROOMS_MIB: Final = (0, 64)
# The largest amount of memory that a plan may leave to a replica, in MiB.
ROOM_MAX_MIB: Final = 1_000_000
_FOR: Final = rf" for (?P<for>{SECONDS}) s"


@dataclass(frozen=True, slots=True)
class Squeeze(Aimed):
    """Leave a replica only a little of a resource, for a time. The kinds are its subclasses.

    Attributes:
        for_s: the time from the landing to the end of the squeeze, in seconds.
        amount: how much the replica still gets. The unit depends on the kind.
    """

    for_s: float = SHORTEST_S
    amount: int = 0

    verb: ClassVar[str] = "squeeze"
    what: ClassVar[Squeezable]
    amounts: ClassVar[tuple[int, ...]] = (0,)
    is_fault: ClassVar[bool] = True
    by_default: ClassVar[bool] = False

    def __str__(self) -> str:
        return f"{self.verb} {self.aim} {self.what}{self.amount_text} for {self.for_s:.2f} s"

    @property
    def amount_text(self) -> str:
        """The part of the text that gives the amount. Empty if the replica gets nothing more."""
        return ""

    @classmethod
    def amount_of(cls, found: re.Match[str]) -> int:
        """Return the amount that a text form gives. Raise ValueError if it is out of bounds."""
        del found
        return 0

    @classmethod
    def parse(cls, found: re.Match[str]) -> Squeeze:
        """Return the step that a text form describes."""
        for_s = number(found["for"], 0.01, WAIT_MAX_S, "seconds")
        return cls(found["role"], int(found["index"]), for_s, cls.amount_of(found))

    @classmethod
    def at(cls, replica: Replica) -> Squeeze:
        """Return the shortest and mildest squeeze of a replica that is drawn."""
        return cls(replica.role, replica.index, SHORTEST_S, max(cls.amounts))

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a squeeze of any replica that lives and is neither stalled nor squeezed."""
        return (
            Rule(f"{cls.verb}_{cls.what.replace(' ', '_')}", _draw(cls), at=cls.at, seldom=True),
        )

    def feature(self, graph: Graph) -> str:
        """Return a text with the role and the resource."""
        del graph
        return f"{self.verb} {self.role} {self.what}"

    @property
    def lasts_s(self) -> float:
        """The time from the landing to the end of the squeeze, in seconds."""
        return self.for_s

    def effect(self, graph: Graph) -> Effect:
        """Return `stops`: the replica does not count as working until the squeeze has ended."""
        del graph
        return "stops"

    async def run(self, scene: Scene) -> Landed:
        """Take the resource away, and see the effect."""
        return await scene.target.resources.squeeze(self.aim, self.what, self.amount, self.for_s)

    async def undo(self, scene: Scene) -> Landed:
        """Give the resource back, and see that the replica has it again."""
        return await scene.target.resources.release(self.aim, self.what)

    def knobs(self) -> tuple[Knob, ...]:
        """Return one number: the length of the squeeze."""
        return (Knob("for_s", 0.01, 0.05, is_time=True),)


def _draw(kind: type[Squeeze]) -> Callable[[Draft, Pick], Iterator[Step]]:
    def draw(draft: Draft, pick: Pick) -> Iterator[Step]:
        replica = pick.replica
        long_s = [one for one in lengths_s(draft.model.spec) if one >= SHORTEST_S]
        yield kind(replica.role, replica.index, pick.one_of(long_s), pick.one_of(kind.amounts))

    return draw


@dataclass(frozen=True, slots=True)
class SqueezeCpu(Squeeze):
    """Leave a replica a share of one core. `amount` is that share in percent."""

    title: ClassVar[str] = "squeeze cpu"
    what: ClassVar[Squeezable] = "cpu"
    amounts: ClassVar[tuple[int, ...]] = SHARES
    form: ClassVar[str] = "squeeze ROLE INDEX cpu to P% for T s"
    pattern: ClassVar[str] = rf"squeeze {ROLE} cpu to (?P<share>\d{{1,6}})%{_FOR}"

    @property
    def amount_text(self) -> str:
        """The share of a core."""
        return f" to {self.amount}%"

    @classmethod
    def amount_of(cls, found: re.Match[str]) -> int:
        """Return the share in percent."""
        return int(number(found["share"], 1, 100, "percent of a core"))


@dataclass(frozen=True, slots=True)
class SqueezeMemory(Squeeze):
    """Let a replica allocate little more memory than it has. `amount` is how much more, in MiB."""

    title: ClassVar[str] = "squeeze memory"
    what: ClassVar[Squeezable] = "memory"
    amounts: ClassVar[tuple[int, ...]] = ROOMS_MIB
    form: ClassVar[str] = "squeeze ROLE INDEX memory to N MiB more for T s"
    pattern: ClassVar[str] = rf"squeeze {ROLE} memory to (?P<room>\d{{1,9}}) MiB more{_FOR}"

    @property
    def amount_text(self) -> str:
        """The room that is left."""
        return f" to {self.amount} MiB more"

    @classmethod
    def amount_of(cls, found: re.Match[str]) -> int:
        """Return the room in MiB."""
        return int(number(found["room"], 0, ROOM_MAX_MIB, "MiB"))


@dataclass(frozen=True, slots=True)
class SqueezeFiles(Squeeze):
    """Let a replica open no further file, pipe or socket."""

    title: ClassVar[str] = "squeeze files"
    what: ClassVar[Squeezable] = "files"
    form: ClassVar[str] = "squeeze ROLE INDEX files for T s"
    pattern: ClassVar[str] = rf"squeeze {ROLE} files{_FOR}"


@dataclass(frozen=True, slots=True)
class SqueezeDisk(Squeeze):
    """Fill the private disk of a replica, on which its HOME and its TMPDIR are."""

    title: ClassVar[str] = "squeeze disk"
    # A file that gives a role a private disk asks for this fault.
    by_default: ClassVar[bool] = True
    what: ClassVar[Squeezable] = "disk"
    form: ClassVar[str] = "squeeze ROLE INDEX disk for T s"
    pattern: ClassVar[str] = rf"squeeze {ROLE} disk{_FOR}"

    @classmethod
    def fits(cls, role: Role) -> bool:
        """True if the graph file gives the role a private disk."""
        return role.disk_mib > 0

    def check(self, model: GraphModel) -> str | None:
        """Return None if the role has a private disk. Otherwise return the reason."""
        if said := Squeeze.check(self, model):
            return said
        if not self.fits(model.spec.role(self.role)):
            return f"roles.{self.role}.disk_mib is missing: it gives each replica a private disk"
        return None


@dataclass(frozen=True, slots=True)
class Hog(Squeeze):
    """Take something of the GPU of a replica by a process beside it. The kinds are its subclasses."""

    verb: ClassVar[str] = "hog"

    @classmethod
    def fits(cls, role: Role) -> bool:
        """True if the replicas of the role get GPUs."""
        return role.gpus > 0

    def check(self, model: GraphModel) -> str | None:
        """Return None if the replica has a GPU. Otherwise return the reason."""
        if said := Squeeze.check(self, model):
            return said
        if not self.fits(model.spec.role(self.role)):
            return f"{self.role} gets no GPU (roles.{self.role}.gpus)"
        return None


@dataclass(frozen=True, slots=True)
class HogGpuMemory(Hog):
    """Take memory of the GPU of a replica until little is free. `amount` is how much stays free, in MiB."""

    title: ClassVar[str] = "hog gpu memory"
    what: ClassVar[Squeezable] = "gpu memory"
    amounts: ClassVar[tuple[int, ...]] = (256,)
    form: ClassVar[str] = "hog ROLE INDEX gpu memory to N MiB free for T s"
    pattern: ClassVar[str] = rf"hog {ROLE} gpu memory to (?P<room>\d{{1,9}}) MiB free{_FOR}"

    @property
    def amount_text(self) -> str:
        """The memory that stays free."""
        return f" to {self.amount} MiB free"

    @classmethod
    def amount_of(cls, found: re.Match[str]) -> int:
        """Return the memory that stays free, in MiB."""
        return int(number(found["room"], 0, ROOM_MAX_MIB, "MiB"))


@dataclass(frozen=True, slots=True)
class HogGpuCompute(Hog):
    """Keep the GPU of a replica busy."""

    title: ClassVar[str] = "hog gpu compute"
    what: ClassVar[Squeezable] = "gpu compute"
    form: ClassVar[str] = "hog ROLE INDEX gpu compute for T s"
    pattern: ClassVar[str] = rf"hog {ROLE} gpu compute{_FOR}"

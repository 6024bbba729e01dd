"""The link that a fault of the network acts on: two ends, both ways or one way.

An end is one replica (`decode 0`), all replicas of a role (`decode`), or `all` other replicas. The clients of Graphquake are no replicas.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.model import Graph, GraphModel

ALL: Final = "all"
END: Final = r"[A-Za-z_][\w-]*(?: \d{1,6})?"
# The link of each kind but `cut`, `reset` and `partition`.
LINK: Final = rf"(?:between (?P<a>{END}) and (?P<b>{END})|from (?P<c>{END}) to (?P<d>{END}))"
# The link of `cut` and `reset`.
APART: Final = rf"(?:from (?P<c>{END}) to (?P<d>{END})|(?P<a>{END}) from (?P<b>{END}))"


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link.

    Attributes:
        role: the role, or `all`.
        index: the number of the replica within its role, from 0. None for all replicas of the role.
    """

    role: str
    index: int | None = None

    def __str__(self) -> str:
        return self.role if self.index is None else f"{self.role} {self.index}"

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the end that a text describes."""
        role, _, index = text.partition(" ")
        return cls(role, int(index) if index else None)

    @property
    def replica(self) -> Replica | None:
        """The replica, if the end is a single one."""
        return None if self.index is None else Replica(self.role, self.index)

    def replicas(self, graph: Graph) -> list[Replica]:
        """Return the replicas of the end. For `all`, these are all replicas of the graph."""
        if self.role == ALL:
            return graph.replicas()
        if (one := self.replica) is not None:
            return [one]
        return [Replica(self.role, index) for index in range(graph.role(self.role).replicas)]

    def unknown(self, model: GraphModel) -> str | None:
        """Return None if the graph has the replicas of this end. Otherwise return the reason."""
        return None if self.role == ALL else model.unknown(Replica(self.role, self.index or 0))

    def narrower(self, graph: Graph) -> list[End]:
        """Return the ends with fewer replicas: each role of `all`, or each replica of a role."""
        if self.role == ALL:
            return [End(role.name) for role in graph.roles]
        replicas = self.replicas(graph)
        return [End(one.role, one.index) for one in replicas] if len(replicas) > 1 else []

    def covers(self, other: End) -> bool:
        """True if this end has each replica of another one."""
        return self in (other, End(ALL), End(other.role))

    def moved(self, to: Callable[[Replica], Replica]) -> End:
        """Return the same end at the replica that `to` gives, if it is a single one."""
        if (one := self.replica) is None:
            return self
        new = to(one)
        return End(new.role, new.index)


@dataclass(frozen=True, slots=True)
class Link:
    """Two ends.

    Attributes:
        one: the first end. If the link is one way, packets go from it to the other end.
        other: the second end.
        one_way: true if only packets from `one` to `other` are disturbed.
    """

    one: End
    other: End
    one_way: bool = False

    @classmethod
    def parse(cls, found: re.Match[str] | Mapping[str, str]) -> Self:
        """Return the link in a match of `LINK` or `APART`."""
        if found["c"]:
            return cls(End.of(found["c"]), End.of(found["d"]), one_way=True)
        return cls(End.of(found["a"]), End.of(found["b"]))

    def text(self) -> str:
        """The text of the link in a step that disturbs it."""
        if self.one_way:
            return f"from {self.one} to {self.other}"
        return f"between {self.one} and {self.other}"

    def apart(self) -> str:
        """The text of the link in a step that separates its ends."""
        return self.text() if self.one_way else f"{self.one} from {self.other}"

    @property
    def ends(self) -> tuple[End, End]:
        """Both ends."""
        return self.one, self.other

    def edges(self, graph: Graph) -> Iterator[tuple[Replica, Replica]]:
        """Yield the sender and the receiver of each direction that is disturbed."""
        for one in self.one.replicas(graph):
            for other in self.other.replicas(graph):
                if one != other:
                    yield one, other
                    if not self.one_way:
                        yield other, one

    def narrower(self, graph: Graph) -> Iterator[Link]:
        """Yield the links of which one end has fewer replicas."""
        found = [
            *(replace(self, other=end) for end in self.other.narrower(graph)),
            *(replace(self, one=end) for end in self.one.narrower(graph)),
        ]
        yield from (link for link in found if any(link.edges(graph)))

    def covers(self, other: Link) -> bool:
        """True if each end of this link covers that of another one, in the same directions."""
        ends = zip(self.ends, other.ends, strict=True)
        return self.one_way == other.one_way and all(mine.covers(end) for mine, end in ends)

    def moved(self, to: Callable[[Replica], Replica]) -> Link:
        """Return the same link at the replicas that `to` gives for the present ones."""
        return replace(self, one=self.one.moved(to), other=self.other.moved(to))

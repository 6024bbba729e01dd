"""The steps `cut` and `partition`: packets are dropped, so connections hang. Neither side gets an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import ClassVar, Final, Self, TypeAlias

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import FaultOfEdges
from graphquake.harness.spec.steps.kind import WAIT_MAX_S, Draft, Pick, Rule, Step, number
from graphquake.harness.spec.steps.model import Graph
from graphquake.harness.spec.steps.network.fault import FOR, LinkFault, OneLink, link_rule
from graphquake.harness.spec.steps.network.link import APART, END, End, Link
from graphquake.harness.spec.steps.processes.stall import lengths_s

Group: TypeAlias = tuple[End, ...]
_GROUP: Final = rf"{END}(?:, {END})*"
# A partition with fewer links has no simpler partition, only cuts.
MIN_LINKS: Final = 2


@dataclass(frozen=True, slots=True)
class Cut(OneLink):
    """Drop all packets of a link."""

    verb: ClassVar[str] = "cut"
    form: ClassVar[str] = "cut END from END for T s | cut from END to END for T s"
    pattern: ClassVar[str] = rf"cut {APART}{FOR}"
    kind: ClassVar[FaultOfEdges] = "cut"

    def __str__(self) -> str:
        return f"cut {self.link.apart()} for {self.for_s:.2f} s"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Cut:
        """Return the step that a text form describes."""
        return cls(number(found["for"], 0.01, WAIT_MAX_S, "seconds"), Link.parse(found))

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a cut between a replica and all others, or between a replica and another role."""
        return link_rule(cls, seldom=False)

    def severs(self, graph: Graph) -> frozenset[frozenset[Replica]]:
        """Return the pairs of replicas that can't talk to each other."""
        return frozenset(map(frozenset, self.edges(graph)))


@dataclass(frozen=True, slots=True)
class Partition(LinkFault):
    """Drop all packets between two groups.

    Attributes:
        one: the ends in the first group.
        other: the ends in the second group.
    """

    one: Group
    other: Group

    verb: ClassVar[str] = "partition"
    form: ClassVar[str] = "partition END, END from END, END for T s"
    pattern: ClassVar[str] = rf"partition (?P<one>{_GROUP}) from (?P<other>{_GROUP}){FOR}"
    kind: ClassVar[FaultOfEdges] = "cut"

    def __str__(self) -> str:
        one, other = (", ".join(map(str, group)) for group in (self.one, self.other))
        return f"partition {one} from {other} for {self.for_s:.2f} s"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Partition:
        """Return the step that a text form describes."""
        one, other = (tuple(map(End.of, found[group].split(", "))) for group in ("one", "other"))
        return cls(number(found["for"], 0.01, WAIT_MAX_S, "seconds"), one, other)

    @property
    def links(self) -> Sequence[Link]:
        """A link between each end of one group and each end of the other one."""
        return [Link(one, other) for one in self.one for other in self.other]

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a partition between roles, or one that splits each role."""
        return (
            Rule(
                cls.verb,
                _draw,
                may=lambda draft: bool(splits(draft.model.spec)),
                picks=True,
                seldom=True,
            ),
        )

    def severs(self, graph: Graph) -> frozenset[frozenset[Replica]]:
        """Return the pairs of replicas that can't talk to each other."""
        return frozenset(map(frozenset, self.edges(graph)))

    def simpler(self, graph: Graph) -> Iterator[Step]:
        """Yield the cuts between one end of each group, and the partitions of which one group has an end less."""
        del graph
        for link in self.links:
            yield Cut(self.for_s, link)
        if len(self.links) > MIN_LINKS:
            yield from (replace(self, one=left) for left in _with_one_less(self.one))
            yield from (replace(self, other=left) for left in _with_one_less(self.other))

    def covers(self, other: Step) -> bool:
        """True if the partition has all links of another step that drops packets, for as long or longer."""
        if not isinstance(other, (Cut, Partition)) or other.for_s > self.for_s:
            return False
        return all(any(mine.covers(link) for mine in self.links) for link in other.links)

    def moved(self, to: Callable[[Replica], Replica]) -> Self:
        """Return the same fault at other replicas."""
        one, other = (tuple(end.moved(to) for end in group) for group in (self.one, self.other))
        return replace(self, one=one, other=other)


def _with_one_less(group: Group) -> list[Group]:
    """Return the groups with one end less. A group of one end has none."""
    return list(combinations(group, len(group) - 1)) if len(group) > 1 else []


def splits(graph: Graph) -> list[tuple[Group, Group]]:
    """Return the pairs of groups among which a partition is drawn. Each differs from a `cut` of one replica.

    Each role with several replicas is separated from all others. In the last pair, the first replica of each such role is separated from
    everything else.
    """
    several = [role for role in graph.roles if role.replicas > 1]
    found: list[tuple[Group, Group]] = [
        ((End(role.name),), tuple(End(one.name) for one in graph.roles if one != role))
        for role in several
        if len(graph.roles) > 1
    ]
    if several:
        rest = [
            [End(r.name, i) for i in range(1, r.replicas)] or [End(r.name)] for r in graph.roles
        ]
        firsts = tuple(End(role.name, 0) for role in several)
        found.append((firsts, tuple(end for ends in rest for end in ends)))
    return found


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    graph = draft.model.spec
    one, other = pick.one_of(splits(graph))
    yield Partition(pick.one_of(lengths_s(graph)), one, other)

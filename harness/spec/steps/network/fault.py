"""The common part of all faults of the network: their links, their times, their start and their end.

A fault lands when the first packet has met it. If no packet meets it in its time, it did not land, and the run is invalid. At its end the
counters of its rule are the proof, and a measured round trip shows that the link is whole again.

Connections may need some time after that. TCP sends a lost packet again after 0.2 s, and waits twice as long after each further loss. So
the next attempt comes up to as long after the end of a cut as the cut had lasted, or `SETTLE_S` later for a new connection. This time
(`settles_s`) is excused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Self

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import FaultOfEdges, Landed, NetworkFault, Scene
from graphquake.harness.spec.steps.kind import (
    SECONDS,
    Draft,
    Pick,
    Rule,
    Step,
)
from graphquake.harness.spec.steps.knob import Knob
from graphquake.harness.spec.steps.model import Graph, GraphModel, Ongoing
from graphquake.harness.spec.steps.network.link import ALL, End, Link
from graphquake.harness.spec.steps.processes.stall import lengths_s

# A new connection is tried again after 1 s, then after twice that time.
SETTLE_S: Final = 1.0
# TCP never waits for longer than this.
SETTLE_MAX_S: Final = 120.0
# The time limit for the first packet, if the fault itself lasts longer.
MEETS_WITHIN_S: Final = 5.0
# The assumed time that the end of a fault takes, with the proof that the link is whole.
ENDS_WITHIN_S: Final = 0.5
FOR: Final = rf" for (?P<for>{SECONDS}) s"
NEEDS: Final = 'needs network = "namespaces" in the graph file, or the option --network namespaces (pytest: --chaos-network namespaces)'


@dataclass(frozen=True, slots=True)
class LinkFault(Step):
    """A fault of the links between replicas. Each kind is a subclass.

    Attributes:
        for_s: the time from the landing to the end of the fault, in seconds.
        degrades: true if the links work badly until the end of the fault. What fails in that time is excused.
    """

    for_s: float

    is_fault: ClassVar[bool] = True
    is_link: ClassVar[bool] = True
    by_default: ClassVar[bool] = False
    degrades: ClassVar[bool] = False
    prior: ClassVar[float] = 0.40
    kind: ClassVar[FaultOfEdges]

    @property
    def links(self) -> Sequence[Link]:
        """The links that are disturbed."""
        raise NotImplementedError

    @property
    def value(self) -> float:
        """The number of the fault, see `NetworkFault.value`."""
        return 0.0

    @property
    def lasts_s(self) -> float:
        """The time from the landing to the end of the fault, in seconds."""
        return self.for_s

    @property
    def settles_s(self) -> float:
        """The time that open connections may need after the end of the fault, in seconds."""
        return min(self.for_s + SETTLE_S, SETTLE_MAX_S)

    @property
    def aims(self) -> tuple[Replica, ...]:
        """The ends that are single replicas."""
        found = (end.replica for link in self.links for end in link.ends)
        return tuple(dict.fromkeys(one for one in found if one is not None))

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the ends, without `all`."""
        names = (end.role for link in self.links for end in link.ends)
        return tuple(dict.fromkeys(name for name in names if name != ALL))

    def edges(self, graph: Graph) -> tuple[tuple[Replica, Replica], ...]:
        """Return the sender and the receiver of each direction that is disturbed."""
        return tuple(dict.fromkeys(edge for link in self.links for edge in link.edges(graph)))

    def severs(self, graph: Graph) -> frozenset[frozenset[Replica]]:
        """Return the pairs of replicas that can't talk to each other."""
        del graph
        return frozenset()

    def impairs(self, graph: Graph) -> frozenset[frozenset[Replica]]:
        """Return the pairs of replicas that can't talk to each other, or only badly."""
        return frozenset(map(frozenset, self.edges(graph))) if self.degrades else self.severs(graph)

    def disturbs_s(
        self, begun_s: float, landed_s: float, undone_s: float | None, end_s: float
    ) -> list[tuple[float, float]]:
        """Return the intervals in which the fault disturbs the graph, in seconds.

        Args:
            begun_s, landed_s: the start and the landing of the fault.
            undone_s: its end, or None if it has not ended.
            end_s: the end of the run.
        """
        settled_s = end_s if undone_s is None else undone_s + self.settles_s
        if self.degrades:
            return [(begun_s, max(landed_s, settled_s))]
        after = [] if undone_s is None else [(undone_s, settled_s)]
        return [(begun_s, landed_s), *after]

    def check(self, model: GraphModel) -> str | None:
        """Return the reason why the graph can't have this fault, or None if it can."""
        if said := Step.check(self, model):
            return said
        if model.spec.network == "host":
            return NEEDS
        for link in self.links:
            if said := next((said for end in link.ends if (said := end.unknown(model))), None):
                return said
            if not list(link.edges(model.spec)) or link.one.role == link.other.role == ALL:
                return f"{link.one} and {link.other} are not two ends of a link"
        return None

    def possible(self, model: GraphModel) -> str | None:
        """Return the reason why the fault is impossible now, or None. Two faults can't act on one link: neither could be proved alone."""
        if said := Step.possible(self, model):
            return said
        taken = {edge for one in model.ongoing for edge in one.edges}
        if not taken.isdisjoint(self.edges(model.spec) if taken else ()):
            return "another fault still acts on the same link"
        return None

    def after(self, model: GraphModel) -> GraphModel:
        """Return the model after this step: the fault is ongoing, and no replica ends or stops. A wait until ready outlasts it."""
        if not self.lasts_s:
            return model
        edges, left_s = frozenset(self.edges(model.spec)), self.lasts_s + ENDS_WITHIN_S
        return model.with_ongoing(
            Ongoing(self.verb, self.aims, left_s, stops=False, unready=True, edges=edges)
        )

    def fault(self, graph: Graph) -> NetworkFault:
        """Return the fault as the target carries it out."""
        return NetworkFault(self.kind, self.value, self.edges(graph))

    async def run(self, scene: Scene) -> Landed:
        """Begin the fault, and wait for the first packet that meets it."""
        within_s = min(self.for_s, MEETS_WITHIN_S)
        fault = self.fault(scene.target.spec)
        return await scene.target.network.begin(scene.number, fault, within_s)

    async def undo(self, scene: Scene) -> Landed:
        """End the fault."""
        fault = self.fault(scene.target.spec)
        return await scene.target.network.end(scene.number, fault, self.settles_s)

    def knobs(self) -> tuple[Knob, ...]:
        """Return one number: the length of the fault."""
        return (Knob("for_s", 0.01, 0.05, is_time=True),) if self.for_s else ()


@dataclass(frozen=True, slots=True)
class OneLink(LinkFault):
    """A fault of one link.

    Attributes:
        link: the link.
    """

    link: Link

    @property
    def links(self) -> Sequence[Link]:
        """The link, as the only item."""
        return (self.link,)

    @classmethod
    def at(cls, replica: Replica) -> Self:
        """Return the mildest fault between a replica and all others that is drawn."""
        return cls(1.0, Link(End(replica.role, replica.index), End(ALL)))

    def feature(self, graph: Graph) -> str:
        """Return a text with the kind and the roles of the link."""
        del graph
        return f"{self.verb} {self.link.one.role} {self.link.other.role}"

    def simpler(self, graph: Graph) -> Iterator[Step]:
        """Yield the same fault of each link with fewer replicas."""
        for link in self.link.narrower(graph):
            yield replace(self, link=link)

    def covers(self, other: Step) -> bool:
        """True if the other fault is the same, maybe at fewer replicas and with lower numbers."""
        if not isinstance(other, OneLink) or not self.link.covers(other.link):
            return False
        return Step.covers(self, replace(other, link=self.link))

    def moved(self, to: Callable[[Replica], Replica]) -> Self:
        """Return the same fault at other replicas."""
        return replace(self, link=self.link.moved(to))


def link_rule(
    kind: type[OneLink],
    ahead: Mapping[str, Sequence[Any]] | None = None,
    *,
    seldom: bool = True,
) -> tuple[Rule, ...]:
    """Return the rule by which a fault of one link is drawn: between a replica and all others, or and one other role.

    Args:
        kind: the kind of the fault.
        ahead: for each field of the step, the values among which one is chosen.
        seldom: true if the kind is drawn more rarely than kills.
    """
    fields = dict(ahead or {})

    def draw(draft: Draft, pick: Pick) -> Iterator[Step]:
        graph, replica = draft.model.spec, pick.replica
        others = [ALL, *_other_roles(graph, replica.role)]
        link = Link(End(replica.role, replica.index), End(pick.one_of(others)))
        values = {name: pick.one_of(values) for name, values in fields.items()}
        yield kind(pick.one_of(lengths_s(graph)), link, **values)

    return (Rule(kind.verb, draw, at=kind.at, seldom=seldom),)


def _other_roles(graph: Graph, name: str) -> Iterator[str]:
    """Yield the roles at the other ends of a role's links. A link between two single replicas belongs to the role that comes first."""
    is_single = graph.role(name).replicas == 1
    is_before = True
    for role in graph.roles:
        is_before = is_before and role.name != name
        if role.name != name and not (is_before and is_single and role.replicas == 1):
            yield role.name

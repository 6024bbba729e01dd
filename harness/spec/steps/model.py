"""A model of the graph: which replicas should be alive after the steps so far.

The model is pure data. It decides which steps are possible, when plans are drawn and when they are shrunk.
It models what should happen. If a respawned replica does not come up, the run finds that out, not the model.

A step that goes on after it has landed is an `Ongoing` entry of the model, until its time is over. The kinds do not need separate fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, Self

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.serves import Serves
from graphquake.harness.spec.table import did_you_mean

# The supervisor starts a dead replica after its delay, and a start takes about this long.
RESPAWN_S: Final = 0.1
# So many replicas are listed in an error message.
LISTED_MAX: Final = 4


class Role(Protocol):
    """The facts about a role that steps need. `RoleSpec` has them."""

    @property
    def name(self) -> str:
        """The name in the graph file."""
        ...

    @property
    def replicas(self) -> int:
        """The number of replicas."""
        ...

    @property
    def children(self) -> Mapping[str, str]:
        """The child processes that a kill may aim at."""
        ...

    @property
    def dies_with(self) -> tuple[str, ...]:
        """The children whose death ends the replica, by design."""
        ...

    @property
    def stop_s(self) -> float:
        """The time that a replica may take to end after SIGTERM, in seconds."""
        ...


class Graph(Protocol):
    """The facts about a graph that steps need. `GraphSpec` has them.

    The graph file contains plans, so `GraphSpec` depends on the steps, and steps can't depend on it.
    """

    @property
    def name(self) -> str:
        """The name in the graph file."""
        ...

    @property
    def roles(self) -> Sequence[Role]:
        """All roles, in the order of the file."""
        ...

    @property
    def entry_role(self) -> Role:
        """The role that clients talk to."""
        ...

    @property
    def serves(self) -> Serves:
        """The roles that a request needs."""
        ...

    @property
    def restart(self) -> str:
        """`always` if the supervisor brings back what died, `never` if only a step or heal does."""
        ...

    @property
    def restart_delay_s(self) -> float:
        """The time from a death to the restart by the supervisor, in seconds."""
        ...

    @property
    def lease_s(self) -> float:
        """The lease, in seconds, or 0 if the graph has none."""
        ...

    @property
    def faults(self) -> tuple[str, ...]:
        """The verbs of the faults that may be drawn."""
        ...

    @property
    def outage_shows_s(self) -> float:
        """An outage that lasts longer than this is visible in all that the graph says, in seconds."""
        ...

    @property
    def ready_within_s(self) -> float:
        """The longest time that the file gives a role to become ready, in seconds."""
        ...

    def role(self, name: str) -> Role:
        """The role of that name. A missing role is a KeyError."""
        ...

    def replicas(self) -> list[Replica]:
        """Every replica, in the order of the file."""
        ...


@dataclass(frozen=True, slots=True)
class Ongoing:
    """A step that has landed and still goes on.

    Attributes:
        verb: the kind of the step.
        aims: the replicas that it acts on.
        left_s: the time until it is undone, in seconds, or infinity if only heal undoes it.
        stops: its replicas do no work while it goes on.
    """

    verb: str
    aims: tuple[Replica, ...]
    left_s: float
    stops: bool


@dataclass(frozen=True, slots=True)
class GraphModel:
    """The graph as it should be.

    Attributes:
        dead: replicas without a process.
        ending: replicas that got SIGTERM.
        coming: dead replicas that the supervisor brings back (`restart = "always"`).
        ongoing: the steps that still act on the graph.
    """

    spec: Graph
    dead: frozenset[Replica] = field(default=frozenset())
    ending: frozenset[Replica] = field(default=frozenset())
    coming: frozenset[Replica] = field(default=frozenset())
    ongoing: frozenset[Ongoing] = field(default=frozenset())

    # ---- the state

    def lives(self, replica: Replica) -> bool:
        """True if the replica runs and does not shut down."""
        return replica not in self.dead | self.ending | self.coming

    def is_stopped(self, replica: Replica) -> bool:
        """True while an ongoing step keeps the replica from all work."""
        return any(one.stops and replica in one.aims for one in self.ongoing)

    def works(self, replica: Replica) -> bool:
        """True if the replica lives and is able to work."""
        return self.lives(replica) and not self.is_stopped(replica)

    def serves(self) -> bool:
        """True if a path is up: an entry, and one replica of each role that a request needs."""
        return self._role_works(self.spec.entry_role.name) and self.spec.serves.holds_by(
            self._role_works
        )

    def _role_works(self, role: str) -> bool:
        return any(self.works(Replica(role, i)) for i in range(self.spec.role(role).replicas))

    def unknown(self, replica: Replica) -> str | None:
        """The reason why the graph does not have this replica, or None if it has it."""
        roles = {role.name: role for role in self.spec.roles}
        if replica.role not in roles:
            near = did_you_mean(replica.role, roles)
            return f'{self.spec.name} has no role "{replica.role}"{near}'
        count = roles[replica.role].replicas
        if replica.index < count:
            return None
        have = " and ".join(str(Replica(replica.role, i)) for i in range(min(count, LISTED_MAX)))
        return f"{self.spec.name} has {have}{' and more' if count > LISTED_MAX else ''}"

    # ---- changes by steps

    def with_ended(self, replica: Replica) -> Self:
        """The replica is dead, and what went on at it alone is over."""
        left = frozenset(one for one in self.ongoing if one.aims != (replica,))
        if self.spec.restart == "always":
            return replace(self, coming=self.coming | {replica}, ongoing=left)
        return replace(self, dead=self.dead | {replica}, ongoing=left)

    def with_ending(self, replica: Replica) -> Self:
        """The replica shuts down."""
        if self.spec.restart == "always":
            return self.with_ended(replica)
        return replace(self, ending=self.ending | {replica})

    def with_started(self, replica: Replica) -> Self:
        """The replica has a new incarnation."""
        return replace(self, dead=self.dead - {replica}, ending=self.ending - {replica})

    def with_ongoing(self, ongoing: Ongoing) -> Self:
        """A step goes on."""
        return replace(self, ongoing=self.ongoing | {ongoing})

    def later(self, for_s: float) -> Self:
        """Time has passed: ongoing steps end, and the supervisor restarts what died."""
        enough = for_s >= self.spec.restart_delay_s + RESPAWN_S
        left = (replace(one, left_s=round(one.left_s - for_s, 2)) for one in self.ongoing)
        return replace(
            self,
            coming=frozenset() if enough else self.coming,
            ongoing=frozenset(one for one in left if one.left_s > 0),
        )

    def settled(self) -> Self:
        """Every replica that lives is ready: what ends without help has ended."""
        lasting = frozenset(one for one in self.ongoing if one.left_s == float("inf"))
        return replace(self, coming=frozenset(), ongoing=lasting)

"""A model of the graph: which replicas should be alive after the steps so far.

The model is pure data. It decides which steps are possible when a plan is drawn, checked or shrunk. The model assumes that every step has
its intended effect. For example, it assumes that a respawned replica becomes ready. Only the run finds out if that is false.

Some steps, such as a stall, act on the graph after they have landed. Such a step is an `Ongoing` entry of the model until its time is
over. So a new kind of step does not need a new field of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, Self

from graphquake.harness.spec.bounds import Promises
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.serves import Serves
from graphquake.harness.spec.steps.own.own_table import OwnStep
from graphquake.harness.spec.table import did_you_mean

# The time that the supervisor needs to start a dead replica, in seconds. It comes on top of `restart_delay_s`.
RESPAWN_S: Final = 0.1
# The largest number of replicas that an error message names.
LISTED_MAX: Final = 4


class Role(Protocol):
    """The properties of a role that steps use. `RoleSpec` has these properties."""

    @property
    def name(self) -> str:
        """The name of the role in the graph file."""
        ...

    @property
    def replicas(self) -> int:
        """The number of replicas of the role."""
        ...

    @property
    def children(self) -> Mapping[str, str]:
        """The child processes that a kill may aim at: name in plans -> process name."""
        ...

    @property
    def gpus(self) -> int:
        """The number of GPUs that each replica gets for itself."""
        ...

    @property
    def disk_mib(self) -> int:
        """The size of the private disk of each replica, in MiB, or 0 if it has none."""
        ...

    @property
    def variants(self) -> Mapping[str, str]:
        """Other commands of the role: name in plans -> template of the command line."""
        ...

    @property
    def dies_with(self) -> tuple[str, ...]:
        """The names of the children whose death ends the replica by design."""
        ...

    @property
    def in_pods(self) -> bool:
        """True if the replicas are pods of a cluster."""
        ...

    @property
    def scales_to(self) -> int:
        """The largest number of replicas that a scale may give the role."""
        ...

    @property
    def stop_s(self) -> float:
        """The time that a replica may take to end after SIGTERM, in seconds."""
        ...


class Load(Protocol):
    """The properties of the load that steps use. `LoadSpec` has these properties."""

    @property
    def rate_per_s(self) -> float:
        """The number of requests per second in an open loop."""
        ...

    @property
    def clients(self) -> int:
        """The number of clients of a closed loop, or 0 for an open loop."""
        ...

    @property
    def stream(self) -> float:
        """The share of requests with a streamed answer, 0 to 1."""
        ...

    @property
    def max_tokens(self) -> int:
        """The length of each answer, in tokens."""
        ...

    @property
    def malformed(self) -> bool:
        """True if a search may draw malformed requests."""
        ...

    @property
    def too_long_tokens(self) -> int:
        """The length of a prompt that the graph must reject, in tokens, or 0 if the file does not give one."""
        ...


class Graph(Protocol):
    """The properties of a graph that steps use. `GraphSpec` has these properties.

    A graph file contains plans, so the module of `GraphSpec` imports the steps. The steps can't import `GraphSpec`, so they use this
    protocol.
    """

    @property
    def name(self) -> str:
        """The name of the graph in its file."""
        ...

    @property
    def roles(self) -> Sequence[Role]:
        """All roles, in the order of the file."""
        ...

    @property
    def entry_role(self) -> Role:
        """The role that clients send requests to."""
        ...

    @property
    def serves(self) -> Serves:
        """The roles that a request needs."""
        ...

    @property
    def promises(self) -> Promises:
        """The bounds of the promises."""
        ...

    @property
    def load(self) -> Load:
        """The load that clients send."""
        ...

    @property
    def restart(self) -> str:
        """`always` if the supervisor restarts dead replicas, `never` if only a step or heal restarts them."""
        ...

    @property
    def restart_delay_s(self) -> float:
        """The time that the supervisor waits before it restarts a dead replica, in seconds."""
        ...

    @property
    def lease_s(self) -> float:
        """The time for which the graph may list a dead replica, in seconds, or 0 if the graph has no leases."""
        ...

    @property
    def faults(self) -> tuple[str, ...]:
        """The titles of the faults that a search may draw, e.g. `kill`."""
        ...

    @property
    def own_steps(self) -> Mapping[str, OwnStep]:
        """The definitions of the user's own steps, by their names."""
        ...

    @property
    def network(self) -> str:
        """`namespaces` if each replica has a network namespace, so that faults of the network are possible. `policies` if cuts are, by
        NetworkPolicies. Otherwise `host`.
        """
        ...

    @property
    def lacks(self) -> Mapping[str, str]:
        """The kinds of steps that the target can't do on this machine, by title, each with the reason. Empty if this was not checked."""
        ...

    @property
    def outage_shows_s(self) -> float:
        """The longest time for which the graph may still list a dead replica, in seconds: the lease plus the bound of `views_agree`."""
        ...

    @property
    def ready_within_s(self) -> float:
        """The largest `within_s` of all readiness probes, in seconds, or 0 if no role has a readiness probe."""
        ...

    def role(self, name: str) -> Role:
        """Return the role with this name. Raise KeyError if the graph has no such role."""
        ...

    def replicas(self) -> list[Replica]:
        """Return every replica, in the order of the file."""
        ...


@dataclass(frozen=True, slots=True)
class Ongoing:
    """A step that has landed and still acts on the graph, such as a stall before its SIGCONT.

    Attributes:
        verb: the verb of the step.
        aims: the replicas that the step acts on.
        left_s: the time until the step is undone, in seconds, or infinity if only heal undoes the step.
        stops: true if the replicas in `aims` do no work until the step is undone.
        unready: true if these replicas are not ready until then, so that a wait until ready outlasts the step.
        blurs: true if it is not known which of these replicas still live, so that no other step may aim at one of them.
        edges: the sender and the receiver of each direction of a link that a fault of the network acts on.
    """

    verb: str
    aims: tuple[Replica, ...]
    left_s: float
    stops: bool
    unready: bool = False
    blurs: bool = False
    edges: frozenset[tuple[Replica, Replica]] = frozenset()


@dataclass(frozen=True, slots=True)
class GraphModel:
    """The state that the graph should have after some steps. Every method that begins with `with_` returns a changed copy.

    Attributes:
        spec: the graph.
        dead: replicas without a process.
        ending: replicas that got SIGTERM and were not started again.
        coming: dead replicas that the supervisor will restart (`restart = "always"`).
        ongoing: the steps that still act on the graph.
        starting: replicas that were started and may not be ready yet.
        burst_requests: the number of requests that bursts have sent.
        burst_streams: true if some of these requests ask for a streamed answer, whatever the share of the load is.
    """

    spec: Graph
    dead: frozenset[Replica] = field(default=frozenset())
    ending: frozenset[Replica] = field(default=frozenset())
    coming: frozenset[Replica] = field(default=frozenset())
    ongoing: frozenset[Ongoing] = field(default=frozenset())
    starting: frozenset[Replica] = field(default=frozenset())
    burst_requests: int = 0
    burst_streams: bool = False

    # ---- the state

    def lives(self, replica: Replica) -> bool:
        """True if the replica is not dead and is not shutting down. A stalled replica lives, too."""
        return not (replica in self.dead or replica in self.ending or replica in self.coming)

    def is_stopped(self, replica: Replica) -> bool:
        """True if an ongoing step, such as a stall, stops the replica."""
        return any(one.stops and replica in one.aims for one in self.ongoing)

    def out_of_reach(self, replica: Replica) -> str | None:
        """Return the reason why most steps can't aim at a replica now: it is dead, perhaps gone, or stalled. None if they can."""
        if not self.lives(replica):
            return f"{replica} does not live any more"
        if any(one.blurs and replica in one.aims for one in self.ongoing):
            return f"{replica} may be gone: its role has another number of replicas until heal"
        return f"{replica} is stalled" if self.is_stopped(replica) else None

    def acts(self, verb: str) -> bool:
        """True if a step with this verb still acts on the graph."""
        return any(one.verb == verb for one in self.ongoing)

    def works(self, replica: Replica) -> bool:
        """True if the replica lives and is not stopped."""
        return self.lives(replica) and not self.is_stopped(replica)

    def serves(self) -> bool:
        """True if a path is up: one replica of the entry role works, and one of each role that a request needs."""
        return self._role_works(self.spec.entry_role.name) and self.spec.serves.holds_by(
            self._role_works
        )

    def _role_works(self, role: str) -> bool:
        return any(self.works(Replica(role, i)) for i in range(self.spec.role(role).replicas))

    def unknown(self, replica: Replica) -> str | None:
        """Return None if the graph has this replica. Otherwise return the text of an error: the role or the index does not exist."""
        try:
            count = self.spec.role(replica.role).replicas
        except KeyError:
            near = did_you_mean(replica.role, [role.name for role in self.spec.roles])
            return f'{self.spec.name} has no role "{replica.role}"{near}'
        if replica.index < count:
            return None
        have = " and ".join(str(Replica(replica.role, i)) for i in range(min(count, LISTED_MAX)))
        return f"{self.spec.name} has {have}{' and more' if count > LISTED_MAX else ''}"

    # ---- changes by steps

    def with_ended(self, replica: Replica) -> Self:
        """Return the model after the death of a replica. Steps that were ongoing at this replica alone are over."""
        left = frozenset(one for one in self.ongoing if one.edges or one.aims != (replica,))
        gone = "coming" if self.spec.restart == "always" else "dead"
        with_it = {gone: getattr(self, gone) | {replica}}
        return replace(self, ongoing=left, starting=self.starting - {replica}, **with_it)

    def with_ending(self, replica: Replica) -> Self:
        """Return the model after SIGTERM to a replica. If the supervisor restarts replicas, the replica counts as dead at once."""
        if self.spec.restart == "always":
            return self.with_ended(replica)
        return replace(self, ending=self.ending | {replica})

    def with_started(self, replica: Replica) -> Self:
        """Return the model after a respawn of a replica: the replica is not dead and is not shutting down."""
        return replace(
            self,
            dead=self.dead - {replica},
            coming=self.coming - {replica},
            ending=self.ending - {replica},
            starting=self.starting | {replica},
        )

    def with_lost(self, replica: Replica) -> Self:
        """Return the model after the death of a replica that only heal brings back."""
        return replace(self, dead=self.dead | {replica}, coming=self.coming - {replica})

    def with_restarted(self, replica: Replica) -> Self:
        """Return the model after the supervisor has restarted a replica. If it was not to be restarted, nothing changes."""
        if replica not in self.coming:
            return self
        return replace(self, coming=self.coming - {replica}, starting=self.starting | {replica})

    def with_burst(self, requests: int, *, streams: bool) -> Self:
        """Return the model after a burst."""
        return replace(
            self,
            burst_requests=self.burst_requests + requests,
            burst_streams=self.burst_streams or streams,
        )

    def with_ongoing(self, ongoing: Ongoing) -> Self:
        """Return the model with one more ongoing step."""
        return replace(self, ongoing=self.ongoing | {ongoing})

    def later(self, for_s: float) -> Self:
        """Return the model `for_s` seconds later. Ongoing steps may be over, and the supervisor may have restarted dead replicas."""
        enough = for_s >= self.spec.restart_delay_s + RESPAWN_S
        left = (replace(one, left_s=round(one.left_s - for_s, 2)) for one in self.ongoing)
        return replace(
            self,
            coming=frozenset() if enough else self.coming,
            starting=self.starting | self.coming if enough else self.starting,
            ongoing=frozenset(one for one in left if one.left_s > 0),
        )

    def settled(self) -> Self:
        """Return the model after a wait until ready: restarts are done, and stalls are over, unless only heal ends them.

        A replica is ready while it is squeezed. So such a step may go on.
        """
        lasting = frozenset(
            one for one in self.ongoing if one.left_s == float("inf") or not one.unready
        )
        return replace(self, coming=frozenset(), starting=frozenset(), ongoing=lasting)

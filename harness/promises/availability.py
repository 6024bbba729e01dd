"""Compute when each replica was up, when a path was up, and which failures are excused.

A failed request is excused if it was sent or in flight while no path was up. It is also excused within W seconds of a fault that landed.
W is `window_s` of the promise `error_window`. This module computes the intervals of a history in which failures are excused. It does not
judge: promises judge (see `builtin`).

Intervals come from events, never from the plan. If a step respawned a replica that did not become ready, the replica counts as down.
Overlapping windows merge, so two kills one second apart excuse the same failures as one kill with a window of W + 1 s.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

from graphquake.harness.history.events import BecameReady, Died, Resumed, StepDone, Undone
from graphquake.harness.history.history import History
from graphquake.harness.history.percentile import percentile
from graphquake.harness.history.request import (
    Outcome,
    Request,
)
from graphquake.harness.promises.joined import is_joined
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.network.fault import LinkFault

# The least value of `Availability.notice_s`, in seconds. An in-flight request may need this time until it fails after its worker is gone.
NOTICE_MIN_S = 0.25


@dataclass(frozen=True, slots=True)
class Stretch:
    """An interval of time on the run's clock, in seconds. Both ends belong to the interval."""

    begin_s: float
    end_s: float

    def meets(self, other: Stretch) -> bool:
        """True if both intervals have a moment in common."""
        return self.begin_s <= other.end_s and other.begin_s <= self.end_s

    def holds(self, other: Stretch) -> bool:
        """True if the other interval lies within this one."""
        return self.begin_s <= other.begin_s and other.end_s <= self.end_s

    def holds_at(self, at_s: float) -> bool:
        """True if the moment `at_s` lies within this interval."""
        return self.begin_s <= at_s <= self.end_s


def union(stretches: Iterable[Stretch]) -> list[Stretch]:
    """Return the union of some intervals: intervals that do not overlap or touch, in order of time."""
    merged: list[Stretch] = []
    for stretch in sorted(stretches, key=lambda s: s.begin_s):
        if merged and stretch.begin_s <= merged[-1].end_s:
            merged[-1] = Stretch(merged[-1].begin_s, max(merged[-1].end_s, stretch.end_s))
        else:
            merged.append(stretch)
    return merged


def up_stretches(history: History) -> dict[Replica, list[Stretch]]:
    """Return the intervals in which each replica was up: for each incarnation, from ready to its end, without its stalls.

    If a fault ended the incarnation, its end is the start of the fault. A replica takes no new work after SIGTERM, though its process may
    live for seconds. A killed process closes its sockets some milliseconds before it is seen to be gone.
    """
    end_s = history.end_s
    up: dict[Replica, list[Stretch]] = {replica: [] for replica in history.spec.replicas()}
    died_s = {(e.replica, e.incarnation): e.at_s for e in history.of(Died)}
    faults, stalls = history.faults(), stalled_stretches(history)
    for event in history.of(BecameReady):
        until_s = died_s.get((event.replica, event.incarnation))
        made_to_end_s = [
            fault.begun_s
            for fault in faults
            if fault.victim == event.replica
            and event.at_s <= fault.begun_s
            and _ends_its_victim(history.spec, fault, until_s)
        ]
        made_to_end_s += [
            at_s
            for fault in faults
            for at_s, replica in fault.told
            if replica == event.replica and event.at_s <= at_s
        ]
        until_s = min([end_s if until_s is None else until_s, *made_to_end_s])
        life = Stretch(event.at_s, max(event.at_s, until_s))
        up[event.replica] += _without(life, stalls[event.replica])
    return up


def _ends_its_victim(spec: GraphSpec, fault: StepDone, died_s: float | None) -> bool:
    """True if a fault ended an incarnation of its victim: a SIGTERM, or a kill (of it or its child) soon before its death.

    Args:
        spec: the graph.
        fault: the fault.
        died_s: the time at which the incarnation died, in seconds, or None if it did not die.
    """
    effect = fault.step.effect(spec)
    if effect == "ends":
        return True
    if effect not in ("kills", "dooms") or died_s is None:
        return False
    return fault.begun_s <= died_s <= fault.at_s + spec.promises.window_s


def stalled_stretches(history: History) -> dict[Replica, list[Stretch]]:
    """Return the intervals in which each replica was stalled: from the start of a stall to the proof that the replica runs again."""
    found: dict[Replica, list[Stretch]] = {replica: [] for replica in history.spec.replicas()}
    for fault in history.faults():
        if fault.victim and fault.step.effect(history.spec) == "stops":
            ends_s = (e.at_s for e in history.of(Resumed) if e.replica == fault.victim)
            until_s = min((s for s in ends_s if s >= fault.at_s), default=history.end_s)
            found[fault.victim].append(Stretch(fault.begun_s, max(fault.at_s, until_s)))
    return found


def apart_stretches(
    history: History, *, or_badly: bool = False
) -> list[tuple[Stretch, frozenset[frozenset[Replica]]]]:
    """Return the intervals in which pairs of replicas could not talk to each other, and these pairs.

    Such an interval ends when open connections have got over the fault.

    Args:
        history: the history.
        or_badly: true for pairs that could talk only badly, too.
    """
    undone_s = {event.number: event.at_s for event in history.of(Undone)}
    found = []
    for fault in history.faults():
        if not isinstance(fault.step, LinkFault):
            continue
        step, spec = fault.step, history.spec
        if pairs := step.impairs(spec) if or_badly else step.severs(spec):
            until_s = undone_s.get(fault.number, history.end_s) + fault.step.settles_s
            found.append((Stretch(fault.begun_s, max(fault.at_s, until_s)), pairs))
    return found


def _without(life: Stretch, gaps: list[Stretch]) -> list[Stretch]:
    """Return the parts of the interval `life` that lie outside all intervals in `gaps`."""
    left, begin_s = [], life.begin_s
    for gap in union(gaps):
        if gap.meets(life):
            if gap.begin_s > begin_s:
                left.append(Stretch(begin_s, gap.begin_s))
            begin_s = gap.end_s
    return [*left, Stretch(begin_s, life.end_s)] if begin_s <= life.end_s else left


@dataclass(frozen=True, slots=True)
class Availability:
    """The paths, outages and excused intervals of one history.

    Attributes:
        paths: the intervals in which a path was up: a replica of the entry role, and one replica of each role that a request needs.
        outages: the intervals after the first path in which no path was up.
        disturbances: for each fault that landed, the interval from its start to W seconds after its landing. For each end of a stall,
            the W seconds after it. W is `window_s` of `error_window`. Intervals that overlap are merged.
        excused: the intervals in which failures are excused: the disturbances, and each outage with R1 seconds after it. R1 is
            `first_ok_s` of `recovery`.
        notice_s: the time after an excused interval in which a failure is still excused if its request was in flight in the interval,
            in seconds: the p99 latency of the undisturbed period, but at least `NOTICE_MIN_S`.
    """

    paths: tuple[Stretch, ...]
    outages: tuple[Stretch, ...]
    disturbances: tuple[Stretch, ...]
    excused: tuple[Stretch, ...]
    notice_s: float

    def path_during(self, stretch: Stretch) -> bool:
        """True if a path was up during the whole interval."""
        return any(path.holds(stretch) for path in self.paths)

    def excuses(self, request: Request) -> bool:
        """True if a failed request is excused: it was in flight in an excused interval, and failed at most `notice_s` seconds later."""
        life = Stretch(request.sent_s, request.ended_s)
        return any(
            x.meets(life) and request.ended_s <= x.end_s + self.notice_s for x in self.excused
        )

    def judgeable(self, request: Request) -> bool:
        """True if the request was at no time in flight in an excused interval."""
        life = Stretch(request.sent_s, request.ended_s)
        return not any(x.meets(life) for x in self.excused)


def availability(history: History) -> Availability:
    """Compute the paths, outages and excused intervals of a history."""
    spec = history.spec
    end_s = history.end_s
    paths = _paths(history)
    outages = [gap for gap in _gaps(paths, end_s) if gap.end_s > gap.begin_s]
    window_s, first_ok_s = spec.promises.window_s, spec.promises.first_ok_s
    disturbances = [Stretch(begun_s, at_s + window_s) for begun_s, at_s in history.disturbed()]
    extended = [Stretch(gap.begin_s, gap.end_s + first_ok_s) for gap in outages]
    return Availability(
        paths=tuple(paths),
        outages=tuple(outages),
        disturbances=tuple(union(disturbances)),
        excused=tuple(union([*disturbances, *extended])),
        notice_s=max(NOTICE_MIN_S, baseline_p99_s(history)),
    )


def unimpaired(history: History, up: Availability) -> Availability:
    """Return the availability without the paths on which the network itself may be late.

    These are paths with a link that works badly, and all paths in the time that TCP needs after the end of a fault.
    """
    faults = [fault.step for fault in history.faults() if isinstance(fault.step, LinkFault)]
    paths = up.paths
    if any(fault.degrades for fault in faults):
        paths = tuple(_paths(history, or_badly=True))
    settling = [
        Stretch(event.at_s, event.at_s + event.step.settles_s)
        for event in history.of(Undone)
        if isinstance(event.step, LinkFault) and event.step.settles_s
    ]
    return replace(up, paths=tuple(part for path in paths for part in _without(path, settling)))


def whole_s(history: History) -> float | None:
    """Return the time from which a graph must recover: heal is over, and connections have got over the faults of the network.

    None if heal is not over.
    """
    healed_s = history.phase_began_s("recover")
    if healed_s is None:
        return None
    ends = (
        event.at_s + event.step.settles_s
        for event in history.of(Undone)
        if isinstance(event.step, LinkFault) and event.step.is_fault
    )
    return max([healed_s, *ends])


def _paths(history: History, *, or_badly: bool = False) -> list[Stretch]:
    """Return the intervals in which a path was up, without links between pairs of `apart_stretches`."""
    up, cuts = up_stretches(history), apart_stretches(history, or_badly=or_badly)
    by_role = {
        role.name: union(s for i in range(role.replicas) for s in up[Replica(role.name, i)])
        for role in history.spec.roles
    }
    # An edge is a time at which a replica comes up or goes down. Between two neighbouring edges nothing changes, so the middle is enough.
    # Without cuts, only the last replica of a role matters.
    all_stretches = [*up.values(), [stretch for stretch, _ in cuts]] if cuts else by_role.values()
    edges = sorted({e for some in all_stretches for s in some for e in (s.begin_s, s.end_s)})
    entry = history.spec.entry_role.name
    paths = []
    for begin_s, end_s in itertools.pairwise(edges):
        middle_s = (begin_s + end_s) / 2
        roles_up = {
            role
            for role, stretches in by_role.items()
            if any(s.holds_at(middle_s) for s in stretches)
        }
        if not (entry in roles_up and history.spec.serves.holds(roles_up)):
            continue
        pairs = frozenset(
            pair for stretch, some in cuts if stretch.holds_at(middle_s) for pair in some
        )
        if not pairs or is_joined(
            history.spec,
            {one for one, some in up.items() if any(s.holds_at(middle_s) for s in some)},
            pairs,
        ):
            paths.append(Stretch(begin_s, end_s))
    return union(paths)


def _gaps(paths: list[Stretch], end_s: float) -> list[Stretch]:
    """Return the intervals without a path, from the end of the first path to `end_s`. If there are no paths, return 0 to `end_s`."""
    if not paths:
        return [Stretch(0.0, end_s)]
    between = [Stretch(a.end_s, b.begin_s) for a, b in itertools.pairwise(paths)]
    return [*between, Stretch(paths[-1].end_s, end_s)]


def baseline_p99_s(history: History) -> float:
    """Return the 99th percentile of the latency of right answers in the undisturbed period, in seconds, or 0 if there were none."""
    until_s = history.undisturbed_s()
    latencies = (
        r.latency_s
        for r in history.requests
        if r.outcome == Outcome.OK and (until_s is None or r.ended_s <= until_s)
    )
    return percentile(latencies, 0.99) or 0.0

"""Compute when each replica was up, when a path was up, and which failures are excused.

A failed request is excused if the graph had no path to serve it. It is also excused if it failed within W seconds of a fault that landed.
This module
turns a history into those intervals. It does not judge: promises do (see `builtin`).

Intervals come from events, never from the plan: a respawn that was requested but never came up counts as an outage. Overlapping windows
merge, so two kills one second apart excuse the same failures as one kill with a window of W + 1 s.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from graphquake.harness.history.events import BecameReady, Died, Resumed, StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.percentile import percentile
from graphquake.harness.history.request import (
    Outcome,
    Request,
)
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.replica import Replica

# An in-flight request may need this long to notice that its worker is gone, or one baseline p99 if that is longer.
NOTICE_MIN_S = 0.25


@dataclass(frozen=True, slots=True)
class Stretch:
    """An interval of run time, in seconds, both ends included."""

    begin_s: float
    end_s: float

    def meets(self, other: Stretch) -> bool:
        """True if the two have a moment in common."""
        return self.begin_s <= other.end_s and other.begin_s <= self.end_s

    def holds(self, other: Stretch) -> bool:
        """True if the other interval lies within this one."""
        return self.begin_s <= other.begin_s and other.end_s <= self.end_s

    def holds_at(self, at_s: float) -> bool:
        """True if that moment lies within this interval."""
        return self.begin_s <= at_s <= self.end_s


def union(stretches: Iterable[Stretch]) -> list[Stretch]:
    """Return the union of intervals, as intervals that do not touch, in order of time."""
    merged: list[Stretch] = []
    for stretch in sorted(stretches, key=lambda s: s.begin_s):
        if merged and stretch.begin_s <= merged[-1].end_s:
            merged[-1] = Stretch(merged[-1].begin_s, max(merged[-1].end_s, stretch.end_s))
        else:
            merged.append(stretch)
    return merged


def up_stretches(history: History) -> dict[Replica, list[Stretch]]:
    """Return, for each replica, the intervals in which it was up: from its first readiness to its end, without the time of stalls.

    A replica that got SIGTERM takes no new work from then on, though its process may live for seconds. A killed process closes its sockets
    some milliseconds before it is seen to be gone. So the end is the begin of the fault.
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
        until_s = min([end_s if until_s is None else until_s, *made_to_end_s])
        life = Stretch(event.at_s, max(event.at_s, until_s))
        up[event.replica] += _without(life, stalls[event.replica])
    return up


def _ends_its_victim(spec: GraphSpec, fault: StepDone, died_s: float | None) -> bool:
    """True if a fault ends its victim: SIGTERM, or a kill after which it died, also a kill of a child that it dies with."""
    effect = fault.step.effect(spec)
    if effect == "ends":
        return True
    if effect not in ("kills", "dooms") or died_s is None:
        return False
    return fault.begun_s <= died_s <= fault.at_s + spec.promises.window_s


def stalled_stretches(history: History) -> dict[Replica, list[Stretch]]:
    """Return, for each replica, the intervals in which it was stalled: from the begin of the stall to the proof that it runs again."""
    found: dict[Replica, list[Stretch]] = {replica: [] for replica in history.spec.replicas()}
    for fault in history.faults():
        if fault.victim and fault.step.effect(history.spec) == "stops":
            ends_s = (e.at_s for e in history.of(Resumed) if e.replica == fault.victim)
            until_s = min((s for s in ends_s if s >= fault.at_s), default=history.end_s)
            found[fault.victim].append(Stretch(fault.begun_s, max(fault.at_s, until_s)))
    return found


def _without(life: Stretch, gaps: list[Stretch]) -> list[Stretch]:
    """Return the parts of an interval that lie outside some others."""
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
        paths: intervals in which a request could be served: an entry and one replica of every needed role were up.
        outages: the gaps between the paths.
        disturbances: for each fault that landed, the interval from its begin to W seconds after it had landed, and W seconds from the
            end of each stall.
        excused: the union of the disturbances, and of the outages extended by R1.
        notice_s: the time after an excused interval in which a request may still fail, if it was in flight in that interval.
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
        """True if a failed request is excused: its life meets an excused interval, and it failed soon after that."""
        life = Stretch(request.sent_s, request.ended_s)
        return any(
            x.meets(life) and request.ended_s <= x.end_s + self.notice_s for x in self.excused
        )

    def judgeable(self, request: Request) -> bool:
        """True if no part of the request's life is excused."""
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


def _paths(history: History) -> list[Stretch]:
    up = up_stretches(history)
    by_role = {
        role.name: union(s for i in range(role.replicas) for s in up[Replica(role.name, i)])
        for role in history.spec.roles
    }
    # Between two neighbouring edges no replica comes or goes, so the middle stands for the whole interval.
    edges = sorted(
        {e for stretches in by_role.values() for s in stretches for e in (s.begin_s, s.end_s)}
    )
    entry = history.spec.entry_role.name
    paths = []
    for begin_s, end_s in itertools.pairwise(edges):
        middle_s = (begin_s + end_s) / 2
        roles_up = {
            role
            for role, stretches in by_role.items()
            if any(s.holds_at(middle_s) for s in stretches)
        }
        if entry in roles_up and history.spec.serves.holds(roles_up):
            paths.append(Stretch(begin_s, end_s))
    return union(paths)


def _gaps(paths: list[Stretch], end_s: float) -> list[Stretch]:
    """Return the gaps between the paths, from the first path to the end of the history."""
    if not paths:
        return [Stretch(0.0, end_s)]
    between = [Stretch(a.end_s, b.begin_s) for a, b in itertools.pairwise(paths)]
    return [*between, Stretch(paths[-1].end_s, end_s)]


def baseline_p99_s(history: History) -> float:
    """Return the 99th percentile of the latency of right answers before the first disturbance, in seconds, or 0 if there were none."""
    until_s = history.undisturbed_s()
    latencies = (
        r.latency_s
        for r in history.requests
        if r.outcome == Outcome.OK and (until_s is None or r.ended_s <= until_s)
    )
    return percentile(latencies, 0.99) or 0.0

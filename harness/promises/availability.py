"""Who was up, and what is excused.

A failed request is no violation while the graph had no way to serve it, or within W seconds of a fault that landed.
This module turns a history into those stretches of time, and nothing else: what a promise makes of them is in `promises`.

Everything is read from events, never from the plan: a respawn that was asked for and never came up is an outage.
Overlapping stretches merge, so two kills one second apart excuse what one kill with a window of W + 1 s would.
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
from graphquake.harness.spec.plan import PROCESS, TREE, Kill, Stall, Terminate
from graphquake.harness.spec.replica import Replica

# A request that was in flight may need this long, or one baseline p99 if that is longer, to notice that its worker is gone.
NOTICE_MIN_S = 0.25


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of run time, both ends included."""

    begin_s: float
    end_s: float

    def meets(self, other: Stretch) -> bool:
        """Whether the two have a moment in common."""
        return self.begin_s <= other.end_s and other.begin_s <= self.end_s

    def holds(self, other: Stretch) -> bool:
        """Whether all of the other lies within this one."""
        return self.begin_s <= other.begin_s and other.end_s <= self.end_s

    def holds_at(self, at_s: float) -> bool:
        """Whether that moment lies within this one."""
        return self.begin_s <= at_s <= self.end_s


def union(stretches: Iterable[Stretch]) -> list[Stretch]:
    """The same moments, as stretches that do not touch, in order."""
    merged: list[Stretch] = []
    for stretch in sorted(stretches, key=lambda s: s.begin_s):
        if merged and stretch.begin_s <= merged[-1].end_s:
            merged[-1] = Stretch(merged[-1].begin_s, max(merged[-1].end_s, stretch.end_s))
        else:
            merged.append(stretch)
    return merged


def up_stretches(history: History) -> dict[Replica, list[Stretch]]:
    """For each replica, when one of its incarnations was up: from its first readiness until it was made to end; not while stalled.

    What was sent SIGTERM takes no new work from then on, though its process may live for seconds. What is killed closes its
    sockets some milliseconds before it is seen to be gone, so it is down from when the kill began.
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
    """Whether a fault makes its victim end: by SIGTERM, or by a kill that it died of, be it of a child that it dies with."""
    step = fault.step
    if isinstance(step, Terminate):
        return True
    if not isinstance(step, Kill) or died_s is None:
        return False
    is_whole = step.scope in (TREE, PROCESS) or step.scope in spec.role(step.role).dies_with
    return is_whole and fault.begun_s <= died_s <= fault.at_s + spec.promises.window_s


def stalled_stretches(history: History) -> dict[Replica, list[Stretch]]:
    """When each replica was stalled: from when its stall began until it was seen to go on."""
    found: dict[Replica, list[Stretch]] = {replica: [] for replica in history.spec.replicas()}
    for fault in history.faults():
        if isinstance(fault.step, Stall) and fault.victim:
            ends_s = (e.at_s for e in history.of(Resumed) if e.replica == fault.victim)
            until_s = min((s for s in ends_s if s >= fault.at_s), default=history.end_s)
            found[fault.victim].append(Stretch(fault.begun_s, max(fault.at_s, until_s)))
    return found


def _without(life: Stretch, gaps: list[Stretch]) -> list[Stretch]:
    """What is left of a stretch without some others."""
    left, begin_s = [], life.begin_s
    for gap in union(gaps):
        if gap.meets(life):
            if gap.begin_s > begin_s:
                left.append(Stretch(begin_s, gap.begin_s))
            begin_s = gap.end_s
    return [*left, Stretch(begin_s, life.end_s)] if begin_s <= life.end_s else left


@dataclass(frozen=True, slots=True)
class Availability:
    """What a history says about who was up, ready to be asked.

    Attributes:
        paths: when a request could be served: an entry up, and one replica of every role that it needs.
        outages: the gaps between the paths.
        disturbances: for each fault that landed, from when it began (a process that dies closes its sockets before it is gone)
            to W after it had landed; and W from the end of each stall.
        excused: the union of disturbances, and of outages extended by R1.
        notice_s: how long after an excused stretch a request may still fail that was in flight within it.
    """

    paths: tuple[Stretch, ...]
    outages: tuple[Stretch, ...]
    disturbances: tuple[Stretch, ...]
    excused: tuple[Stretch, ...]
    notice_s: float

    def path_during(self, stretch: Stretch) -> bool:
        """Whether a path was there all the time."""
        return any(path.holds(stretch) for path in self.paths)

    def excuses(self, request: Request) -> bool:
        """Whether a failed request is excused: its life meets an excused stretch, and it failed soon after that."""
        life = Stretch(request.sent_s, request.ended_s)
        return any(
            x.meets(life) and request.ended_s <= x.end_s + self.notice_s for x in self.excused
        )

    def judgeable(self, request: Request) -> bool:
        """Whether no part of the request's life is excused."""
        life = Stretch(request.sent_s, request.ended_s)
        return not any(x.meets(life) for x in self.excused)


def availability(history: History) -> Availability:
    """Who was up when, whether a path existed, and what is excused."""
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
    # Between two neighbouring edges nobody comes or goes, so one moment in the middle stands for all of them.
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
    """What lies between the paths, from the first of them to the end of the history."""
    if not paths:
        return [Stretch(0.0, end_s)]
    between = [Stretch(a.end_s, b.begin_s) for a, b in itertools.pairwise(paths)]
    return [*between, Stretch(paths[-1].end_s, end_s)]


def baseline_p99_s(history: History) -> float:
    """The 99th percentile of the latency of what was answered before anything was done to the graph; 0 if nothing was."""
    until_s = history.undisturbed_s()
    latencies = (
        r.latency_s
        for r in history.requests
        if r.outcome == Outcome.OK and (until_s is None or r.ended_s <= until_s)
    )
    return percentile(latencies, 0.99) or 0.0

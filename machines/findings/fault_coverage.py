"""Fault coverage: the kinds of fault that a search has tried, counted from the histories of its runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from graphquake.harness.history.events import BecameReady, Died, Spawned, StepDone
from graphquake.harness.history.history import History
from graphquake.harness.promises.idle import idle_faults
from graphquake.harness.spec.feasible import drawn_at
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.replica import Replica

OVERLAP = "kill while another recovers"
BURST_ON_PART = "burst on a part of the graph"
# Follows the kind of a fault that hit a replica which had served nothing. Such a fault does not count as tried.
IDLE = " (idle)"


def drawable(spec: GraphSpec) -> list[str]:
    """Every kind of fault that can be drawn for a graph, by role: `kill decode`."""
    drawn = {role.name: drawn_at(spec, role.name) for role in spec.roles}
    titles = dict.fromkeys(title for of_role in drawn.values() for title in of_role)
    at_roles = [f"{title} {role}" for title in titles for role in drawn if title in drawn[role]]
    # Steps of the user's own that aim at no replica.
    own = (spec.own_steps[one] for one in spec.faults if one in spec.own_steps)
    return at_roles + [one.name for one in own if not one.role and one.name not in spec.lacks]


class FaultCoverage:
    """Counts the faults that landed, by kind and role. Faults that hit an idle replica are counted apart, as `kill decode (idle)`.

    It also counts the faults that landed while another replica was down (`OVERLAP`), and the bursts that landed while a replica was down
    (`BURST_ON_PART`).
    """

    def __init__(self, spec: GraphSpec) -> None:
        self._spec = spec
        self.count: Counter[str] = Counter()

    def add(self, history: History) -> None:
        """Count the faults of one run."""
        self.count.update(_kinds(history))

    def tried(self) -> dict[str, int]:
        """Each kind of fault that landed -> the number of times. The most frequent kind comes first."""
        return dict(self.count.most_common())

    def not_tried(self) -> list[str]:
        """The kinds of fault that can be drawn for the graph, and that never landed."""
        return [kind for kind in drawable(self._spec) if not self.count[kind]]


def _kinds(history: History) -> Iterator[str]:
    idle = idle_faults(history)
    down: set[Replica] = set()
    moves: list[Spawned | BecameReady | Died | StepDone] = [
        *history.of(Spawned),
        *history.of(BecameReady),
        *history.of(Died),
        *history.of(StepDone),
    ]
    for event in sorted(moves, key=lambda e: e.at_s):
        if isinstance(event, BecameReady):
            down.discard(event.replica)
        elif isinstance(event, Died | Spawned):
            down.add(event.replica)
        elif event.landed:
            step = event.step
            if step.is_fault and event.number in idle:
                yield from dict.fromkeys(f"{step.called} {role}{IDLE}" for role in step.roles)
            elif step.is_fault:
                kinds = (f"{step.called} {role}" for role in step.roles)
                yield from dict.fromkeys(kinds if step.roles else [step.called])
                if down - {event.victim}:
                    yield OVERLAP
            elif step.adds_load and down:
                yield BURST_ON_PART

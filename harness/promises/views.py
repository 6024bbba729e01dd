"""What a graph says about itself, against what is; and the promise `views_agree`.

Wherever the graph file knows of a list or a readiness probe, it is asked again and again while a run goes on. That the two differ for a
while is as it must be, since the graph learns of things later than the supervisor: what is dead may stay listed for a lease. What differs
for longer, with nothing changing meanwhile and no registry away, is a graph that lies: healthy without a route, or deaf to workers that
are there. Looks are samples: a replica that was well for a moment between two of them is known from the events alone, so the clock
begins anew with each event that changes who is up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from graphquake.harness.history.events import (
    BecameReady,
    Died,
    Resumed,
    Seen,
    StepDone,
    ViewKind,
)
from graphquake.harness.history.history import History
from graphquake.harness.promises.availability import Availability
from graphquake.harness.promises.verdict import Violation, violation_in
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import View


@dataclass(slots=True)
class Views:
    """What was seen last, to tell what is to be written down, and when to look again.

    Attributes:
        looked_s: when it was last looked.
    """

    looked_s: float = 0.0
    _last: dict[tuple[Replica, ViewKind], Seen] = field(default_factory=dict)

    def changes(self, views: Sequence[View], at_s: float) -> list[Seen]:
        """What is to be written down of a look that was taken at that time: what changed since the last one, and what is not so."""
        self.looked_s = at_s
        now = {(one.observer, one.what): one for one in views}
        found = []
        for key in self._last.keys() | now.keys():
            # Whoever can't be asked, since it is dead, says nothing wrong.
            says, holds = (now[key].says, now[key].holds) if key in now else (0, 0)
            last = self._last.get(key)
            if last is None or says != holds or (last.says, last.holds) != (says, holds):
                self._last[key] = Seen(at_s, *key, says, holds)
                found.append(self._last[key])
        return found

    @property
    def differ(self) -> bool:
        """Whether something differed in the last look."""
        return any(seen.says != seen.holds for seen in self._last.values())

    def undecided_until_s(self, history: History) -> float | None:
        """Until when a look has to wait that decides about what differs; None if nothing does, or the last look decided."""
        decided = (
            bound_s
            for first in _differing(history)
            if (bound_s := _since_s(history, first) + _bound_s(history, first)) > self.looked_s
        )
        return min(decided, default=None)


def views_agree(history: History, up: Availability) -> Iterator[Violation]:
    """No list and no probe says for longer than `within_s` what is not so; what is gone may be listed for a lease more.

    What was seen to be right again was wrong for no longer than it was seen to be: a look may come late.
    """
    del up
    stretches: dict[tuple[Replica, ViewKind], Seen] = {}
    broken = set[Seen]()
    for seen in history.of(Seen):
        first = _stretch(stretches, seen)
        if first is None or first in broken:
            continue
        since_s = _too_long_since_s(history, first, seen.at_s)
        if since_s is not None:
            broken.add(first)
            yield _violation(history, first, since_s)


def _differing(history: History) -> list[Seen]:
    """The first look of everything that differs at the end."""
    stretches: dict[tuple[Replica, ViewKind], Seen] = {}
    for seen in history.of(Seen):
        _stretch(stretches, seen)
    return list(stretches.values())


def _stretch(stretches: dict[tuple[Replica, ViewKind], Seen], seen: Seen) -> Seen | None:
    """The first look of the stretch in which this one differs in the same way; None if it does not differ. Keeps what is known of all."""
    key = seen.observer, seen.what
    if key in stretches and not _alike(stretches[key], seen):
        del stretches[key]
    return stretches.setdefault(key, seen) if seen.says != seen.holds else None


def _alike(first: Seen, later: Seen) -> bool:
    """Whether something differs in the same direction, and nothing changed that it should have followed."""
    return first.holds == later.holds and (
        (first.says > first.holds) == (later.says > later.holds) and later.says != later.holds
    )


def _changes_s(history: History) -> list[float]:
    """When somebody came, went, was told to go or went on: from then on something else should be said."""
    events: list[BecameReady | Died | Resumed | StepDone] = [
        *history.of(BecameReady),
        *history.of(Died),
        *history.of(Resumed),
        *history.faults(),
    ]
    return sorted(event.at_s for event in events)


def _since_s(history: History, seen: Seen) -> float:
    """Since when nothing has changed any more that what was seen should have followed."""
    return max([seen.at_s, *_changes_s(history)])


def _too_long_since_s(history: History, first: Seen, until_s: float) -> float | None:
    """The begin of a stretch without a change in which something differed for too long; None if there is none."""
    within = [at_s for at_s in _changes_s(history) if first.at_s < at_s < until_s]
    stretches = pairwise([first.at_s, *within, until_s])
    bound_s = _bound_s(history, first)
    return next((begin_s for begin_s, end_s in stretches if end_s - begin_s >= bound_s), None)


def _bound_s(history: History, seen: Seen) -> float:
    more = history.spec.lease_s if seen.says > seen.holds else 0.0
    return history.spec.promises.agree_s + more


def _violation(history: History, seen: Seen, since_s: float) -> Violation:
    role = seen.observer.role
    if seen.what == "listing":
        how = "lists too many" if seen.says > seen.holds else "lists too few"
        text = f"{seen.observer} lists {max(seen.says, 0)} where {seen.holds} are alive"
    else:
        how = "ready without a path" if seen.says > seen.holds else "not ready"
        text = f"{seen.observer} says that it is {'ready' if seen.says else 'not ready'}"
    text += f", for {_bound_s(history, seen):g} s and longer"
    return violation_in(
        history, "views_agree", f"{role} {how}", since_s + _bound_s(history, seen), text
    )

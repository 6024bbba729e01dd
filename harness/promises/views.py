"""The promise `views_agree`: the lists and readiness probes of a graph agree with the true state of its replicas.

During a run, a *look* asks each list and each readiness probe of the graph file, and notes the right answers. Looks are repeated. A wrong
answer for a short time is normal, because the graph learns of changes later than the supervisor. For example, a dead replica may stay
listed for a lease. A wrong answer for a longer time is a bug, unless a replica comes or goes in that time, or a registry is down.
For example, the graph says that it is ready without a path, or it does not list live workers.
In a cluster, the readiness of pods and the EndpointSlices are such answers, too: each pod should be listed as ready if it serves, and only
then.

Looks are samples, so the answer may have been right for a moment between two looks. Only events show such a moment. So the time of a wrong
answer is counted anew from each event that changes which replicas are up.
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
    """The last answer of each list and each readiness probe. A run uses them to choose the answers to record, and the next look.

    Attributes:
        looked_s: the time of the last look, in seconds on the run's clock.
    """

    looked_s: float = 0.0
    _last: dict[tuple[Replica, ViewKind], Seen] = field(default_factory=dict)

    def changes(self, views: Sequence[View], at_s: float) -> list[Seen]:
        """Return the answers of a look that the run records: changed answers, answers whose right value changed, and wrong answers.

        Args:
            views: the answers and the right answers.
            at_s: the time of the look, in seconds on the run's clock.
        """
        self.looked_s = at_s
        now = {(one.observer, one.what): one for one in views}
        found = []
        for key in self._last.keys() | now.keys():
            # A dead observer can't be asked, so its answer is not wrong.
            says, holds = (now[key].says, now[key].holds) if key in now else (0, 0)
            last = self._last.get(key)
            if last is None or says != holds or (last.says, last.holds) != (says, holds):
                self._last[key] = Seen(at_s, *key, says, holds)
                found.append(self._last[key])
        return found

    @property
    def differ(self) -> bool:
        """True if at least one answer was wrong in the last look."""
        return any(seen.says != seen.holds for seen in self._last.values())

    def undecided_until_s(self, history: History) -> float | None:
        """Return the earliest time at which an answer that is wrong now will have been wrong for too long, in seconds.

        A look at that time decides whether the promise is broken. Return None if no answer is wrong, or if the last look was late enough.
        """
        decided = (
            bound_s
            for first in _differing(history)
            if (bound_s := _since_s(history, first) + _bound_s(history, first)) > self.looked_s
        )
        return min(decided, default=None)


def views_agree(history: History, up: Availability) -> Iterator[Violation]:
    """No list and no readiness probe is wrong for `within_s` seconds or longer. A number that is too large may stay for one lease more.

    A wrong answer counts up to the last look at which it was still wrong, because the next look may come late.
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
    """Return the first recorded answer of each series of wrong answers that lasts to the end of the history."""
    stretches: dict[tuple[Replica, ViewKind], Seen] = {}
    for seen in history.of(Seen):
        _stretch(stretches, seen)
    return list(stretches.values())


def _stretch(stretches: dict[tuple[Replica, ViewKind], Seen], seen: Seen) -> Seen | None:
    """Return the first answer of the series of wrong answers that `seen` belongs to, or None if `seen` is right.

    Args:
        stretches: the first answer of each present series, by observer and question. This function updates it.
        seen: the next recorded answer.
    """
    key = seen.observer, seen.what
    if key in stretches and not _alike(stretches[key], seen):
        del stretches[key]
    return stretches.setdefault(key, seen) if seen.says != seen.holds else None


def _alike(first: Seen, later: Seen) -> bool:
    """True if both answers are too large, or both are too small, and the right answer is the same for both."""
    return first.holds == later.holds and (
        (first.says > first.holds) == (later.says > later.holds) and later.says != later.holds
    )


def _changes_s(history: History) -> list[float]:
    """Return the times at which right answers may have changed, sorted: a replica became ready, died or was resumed, or a fault landed."""
    events: list[BecameReady | Died | Resumed | StepDone] = [
        *history.of(BecameReady),
        *history.of(Died),
        *history.of(Resumed),
        *history.faults(),
    ]
    return sorted(event.at_s for event in events)


def _since_s(history: History, seen: Seen) -> float:
    """Return the time from which the wrong answer `seen` counts: the time of `seen`, or of the last event that may change right answers."""
    return max([seen.at_s, *_changes_s(history)])


def _too_long_since_s(history: History, first: Seen, until_s: float) -> float | None:
    """Return the start of the first interval in which an answer was wrong for too long, or None if there is none.

    Args:
        history: the run.
        first: the first answer of a series of wrong answers.
        until_s: the time of the last wrong answer so far, in seconds on the run's clock. Events that may change right answers divide the
            time up to `until_s` into intervals.
    """
    within = [at_s for at_s in _changes_s(history) if first.at_s < at_s < until_s]
    stretches = pairwise([first.at_s, *within, until_s])
    bound_s = _bound_s(history, first)
    return next((begin_s for begin_s, end_s in stretches if end_s - begin_s >= bound_s), None)


def _bound_s(history: History, seen: Seen) -> float:
    more = history.spec.lease_s if seen.says > seen.holds else 0.0
    return history.spec.promises.agree_s + more


def _of_cluster(seen: Seen) -> tuple[str, str]:
    """Return how a cluster is wrong about a pod, in a few words and in a sentence."""
    said = "ready" if seen.says else "not ready"
    does = "serves" if seen.holds else "does not serve"
    if seen.what == "pod":
        return f"pod {said} but {does}", f"the cluster says that the pod of {seen.observer} is {said}, and it {does}"  # fmt: skip
    listed = "listed" if seen.says else "not listed"
    return f"{listed} but {does}", f"the EndpointSlices say that {seen.observer} is {said}, and it {does}"  # fmt: skip


def _violation(history: History, seen: Seen, since_s: float) -> Violation:
    role = seen.observer.role
    if seen.what == "listing":
        how = "lists too many" if seen.says > seen.holds else "lists too few"
        text = f"{seen.observer} lists {max(seen.says, 0)} where {seen.holds} are alive"
    elif seen.what in ("pod", "endpoint"):
        how, text = _of_cluster(seen)
    else:
        how = "ready without a path" if seen.says > seen.holds else "not ready"
        text = f"{seen.observer} says that it is {'ready' if seen.says else 'not ready'}"
    text += f", for {_bound_s(history, seen):g} s and longer"
    return violation_in(
        history, "views_agree", f"{role} {how}", since_s + _bound_s(history, seen), text
    )

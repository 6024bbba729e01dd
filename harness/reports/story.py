"""The story of a run in five to ten lines, for a reader who opens the folder of a finding.

Lines are in order of time. They show the faults with their proofs, the events that the plan waited for, unexpected deaths, and the heal.
They also show the first and the last failure of the two most common kinds, the number of each kind, leaks, and replicas that came back.
Each line begins with its time in seconds since the first fault, or since the start of the plan if no fault landed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, TypeAlias

from graphquake.harness.history.events import BecameReady, Died, Leaked, Resumed, StepDone, Undone
from graphquake.harness.history.history import History
from graphquake.harness.history.request import (
    Outcome,
    Request,
)
from graphquake.harness.promises.idle import unserved, unserved_texts
from graphquake.harness.reports.text import since_s
from graphquake.harness.spec.plan import Until

LINES_MAX: Final = 10
# The priorities of lines, most important first. If there are too many lines, those of the last priority are left out first.
_FAULT, _DEATH, _FAILURE, _EVENT, _HEAL, _RETURN = range(6)

Line: TypeAlias = tuple[float, int, str]


def story(history: History) -> list[str]:
    """Return the lines of the story, at most `LINES_MAX`. If a run has more, the least important lines are left out."""
    lines = sorted(_lines(history), key=lambda one: one[1])[:LINES_MAX]
    zero_s = since_s(history)
    return [f"{at_s - zero_s:+7.2f} s  {text}" for at_s, _, text in sorted(lines)]


def _lines(history: History) -> Iterator[Line]:
    for one, text in zip(unserved(history), unserved_texts(history), strict=True):
        yield one.at_s, _FAULT, text
    for fault in history.faults():
        yield fault.at_s, _FAULT, f"{fault.step}: {fault.proof}"
    yield from _own(history)
    yield from _awaited(history)
    for death in history.of(Died):
        if not death.aimed:
            yield death.at_s, _DEATH, f"{death.replica} dies unexpectedly, {death.how}"
    yield from _failures(history)
    healed_s = history.phase_began_s("recover")
    died = any(death.at_s <= (healed_s or 0.0) for death in history.of(Died))
    if healed_s is not None and history.plan.heal == "all" and died:
        yield healed_s, _HEAL, "all dead replicas have been started again"
    for leak in history.of(Leaked):
        yield leak.at_s, _FAILURE, f"still there after the load: {leak.what}"
    for resumed in history.of(Resumed):
        yield resumed.at_s, _RETURN, f"{resumed.replica} goes on"
    for ready in history.of(BecameReady):
        if ready.incarnation:
            yield ready.at_s, _RETURN, f"{ready.replica} is ready again"


def _own(history: History) -> Iterator[Line]:
    """Yield the steps of the user's own that are not faults, and the ends of all of them."""
    for own in history.of(StepDone):
        if own.step.is_own and not own.fault and own.landed:
            yield own.at_s, _FAULT, f"{own.step}: {own.proof}"
    for undone in history.of(Undone):
        yield undone.at_s, _RETURN, f"{undone.step} is undone"


def _awaited(history: History) -> Iterator[Line]:
    """Yield the waits for events: the event, or that it did not come."""
    for done in history.of(StepDone):
        if isinstance(done.step, Until):
            in_vain = "in vain: " if done.missed else ""
            yield done.at_s, _EVENT, f"{done.step}: {in_vain}{done.proof}"


def _failures(history: History) -> Iterator[Line]:
    """Yield the first and the last failure of the two most common kinds, and the first right answer after all failures."""
    zero_s = since_s(history)
    ended = [r for r in history.ended() if r.ended_s >= zero_s]
    bad = [r for r in ended if r.failed or r.outcome == Outcome.WRONG]
    for detail, count in Counter(r.detail for r in bad).most_common(2):
        of = [r for r in bad if r.detail == detail]
        yield of[0].ended_s, _FAILURE, f"first of {count} × {detail}: {_who(of[0])}"
        if count > 1:
            yield of[-1].ended_s, _FAILURE, f"last of {count} × {detail}: {_who(of[-1])}"
    if bad:
        right = next(
            (r for r in ended if r.outcome == Outcome.OK and r.sent_s > bad[-1].ended_s), None
        )
        if right is not None:
            yield right.ended_s, _HEAL, f"right from here on: {_who(right)}"


def _who(request: Request) -> str:
    message = f": {request.message}" if request.message else ""
    return f"request {request.number} after {request.latency_s:.2f} s{message}"[:100]

"""The verdict of a run: the violations of its promises, and the causes that make it invalid or weak."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from graphquake.harness.history.events import Invalidated, StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.request import AS_ASKED
from graphquake.harness.promises.availability import Availability, availability
from graphquake.harness.promises.builtin import promises_of
from graphquake.harness.promises.bursts import missed_bursts
from graphquake.harness.promises.idle import idle_reason
from graphquake.harness.promises.in_vain import waits_in_vain
from graphquake.harness.promises.verdict import Verdict, Violation

# A run is weak if less than this share of its requests could be judged.
JUDGED_SHARE_MIN: Final = 0.25
# A run is invalid if more than `LATE_SHARE_MAX` of its requests, and more than one, were sent more than `LATE_S` seconds after their
# intended time. On two noisy cores, with 40 requests/s, the p99 of this delay stayed below 0.1 s while four processes started.
LATE_S: Final = 0.25
LATE_SHARE_MAX: Final = 0.02
# The first words of that cause.
LATE: Final = "client late"


def judge(history: History) -> Verdict:
    """Return the verdict of one run.

    Some causes make a run invalid from a certain time on, e.g. a step that did not land. Violations from the time of the first cause on do
    not count. A violation before that time makes the run broken. A run on a machine that was too busy is invalid only if it shows
    violations. If it kept all promises with less CPU time, it is kept, and weak.

    Raises:
        InputError: if a promise of the user can't be imported, raises an exception or yields something that is not a violation.
    """
    up = availability(history)
    violations = sorted(
        (v for promise in promises_of(history.spec).values() for v in promise(history, up)),
        key=lambda v: v.at_s,
    )
    causes = sorted(_causes(history), key=lambda one: (one.at_s, one.cause))
    counting = [v for v in violations if not causes or v.at_s < causes[0].at_s]
    weak = tuple(_weak_because(history, up))
    excused = _excused(history, counting)
    if counting:
        return Verdict("broken", tuple(counting), weak_because=weak, excused=excused)
    texts = tuple(one.cause for one in causes)
    if violations or not all(one.spares_kept for one in causes):
        return Verdict("invalid", causes=texts)
    return Verdict("kept", weak_because=weak + texts, excused=excused)


def _excused(history: History, violations: list[Violation]) -> int:
    """Return the number of failed requests of which no violation tells."""
    told = {violation.request for violation in violations}
    return sum(request.failed and request.number not in told for request in history.requests)


def _weak_because(history: History, up: Availability) -> Iterator[str]:
    """Yield each reason why the run proves little, in words."""
    ended = [r for r in history.requests if r.outcome and r.outcome not in AS_ASKED]
    judged = sum(map(up.judgeable, ended))
    if judged < JUDGED_SHARE_MIN * len(ended):
        yield (
            f"only {judged} of {len(ended)} requests could be judged, "
            "because the others fell into excused intervals"
        )
    if (idle := idle_reason(history)) is not None:
        yield idle
    yield from waits_in_vain(history)


def _causes(history: History) -> Iterator[Invalidated]:
    """Yield each cause from which on violations prove nothing."""
    plan_s = history.phase_began_s("plan")
    for request in history.requests:
        if request.failed and (plan_s is None or request.ended_s < plan_s):
            yield Invalidated(request.ended_s, f"baseline failed: {request.detail}")
            break
    for step in history.of(StepDone):
        if not step.landed:
            yield Invalidated(step.at_s, f'"{step.step}" did not land: {step.proof}')
    for burst, at_s, why in missed_bursts(history):
        yield Invalidated(at_s, f'"{burst.step}" did not land: {why}')
    yield from history.of(Invalidated)
    sent = [r for r in history.requests if r.outcome]
    late = [r for r in sent if r.sent_s - r.intended_s > LATE_S]
    if len(late) > max(1, LATE_SHARE_MAX * len(sent)):
        cause = f"{LATE}: {len(late)} of {len(sent)} requests left over {LATE_S:g} s too late"
        yield Invalidated(min(r.intended_s for r in late), cause)

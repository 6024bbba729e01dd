"""The built-in promises of a graph, and `judge`, which applies them to a history.

Each promise is a pure function of a history and its availability. It yields one `Violation` for each place where it does not hold. Exactly
one promise judges a failed request, so one failure is never two findings:

- `answers` judges a wrong answer,
- `ends` judges a request that got no byte,
- `recovery` judges a request that was sent after the graph had its time to recover,
- `error_window` judges every other one.

`judge` puts them together with the causes that make a run invalid. It may be asked about a run that still goes on (an early verdict), so a
promise yields only what no later event can undo.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias, cast

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import Died, Invalidated, Leaked, Phase, StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.request import (
    FAILED,
    Outcome,
    Request,
)
from graphquake.harness.promises.availability import Availability, Stretch, availability
from graphquake.harness.promises.signature import PathWord, Signature
from graphquake.harness.promises.throughput import queueing, throughput
from graphquake.harness.promises.verdict import Verdict, Violation, violation_in
from graphquake.harness.promises.views import views_agree
from graphquake.harness.spec.graph import GraphSpec

Promise: TypeAlias = Callable[[History, Availability], Iterable[Violation]]

# A run is weak if less than this share of its requests could be judged.
JUDGED_SHARE_MIN: Final = 0.25
# The load generator was late if more than this share of its requests left this many seconds after their time. On two noisy cores the p99 of
# 40 requests/s stayed below 0.1 s while four processes started.
LATE_S: Final = 0.25
LATE_SHARE_MAX: Final = 0.02


def _path_word(up: Availability, life: Stretch) -> PathWord:
    return "path left" if up.path_during(life) else "no path"


def ends(history: History, up: Availability) -> Iterator[Violation]:
    """While a path is up, no request reaches its deadline, and none gets no byte for `stall_s`."""
    stall_s = history.spec.promises.stall_s
    for request in history.requests:
        if not request.outcome:
            continue
        quiet = Stretch(request.quiet_from_s, request.quiet_to_s)
        life = Stretch(request.sent_s, request.ended_s)
        silent = quiet.end_s - quiet.begin_s >= stall_s and _path_for(up, quiet, stall_s)
        late = request.outcome == Outcome.TIMED_OUT and up.path_during(life)
        if silent or late:
            yield violation_in(
                history,
                "ends",
                "no byte / path left" if silent else "deadline / path left",
                quiet.begin_s + stall_s if silent else request.ended_s,
                f"request {request.number} got no byte for {quiet.end_s - quiet.begin_s:.1f} s",
                request.number,
            )


def _path_for(up: Availability, quiet: Stretch, stall_s: float) -> bool:
    """True if, within a quiet interval, a path was up for `stall_s` without a break."""
    return any(
        min(quiet.end_s, path.end_s) - max(quiet.begin_s, path.begin_s) >= stall_s
        for path in up.paths
    )


def answers(history: History, up: Availability) -> Iterator[Violation]:
    """Every completed answer is exact: no token is lost, repeated, or from another request. No fault excuses a wrong answer."""
    del up
    for request in history.requests:
        if request.outcome == Outcome.WRONG:
            yield violation_in(
                history,
                "answers",
                request.detail,
                request.ended_s,
                f"request {request.number}: {request.message}",
                request.number,
            )


def error_window(history: History, up: Availability) -> Iterator[Violation]:
    """Every failure is excused by a fault that landed shortly before, or by an outage. And not too many are."""
    excused: list[Request] = []
    for request in _failed(history):
        if _is_for_recovery(history, request):
            continue
        if up.excuses(request):
            excused.append(request)
            continue
        life = Stretch(request.sent_s, request.ended_s)
        yield violation_in(
            history,
            "error_window",
            f"{request.detail} / {_path_word(up, life)}",
            request.ended_s,
            f"request {request.number} sent at {request.sent_s:.2f} s failed after "
            f"{request.latency_s:.2f} s: {request.detail}",
            request.number,
        )
    yield from _too_many(history, up, excused)


def _too_many(history: History, up: Availability, excused: list[Request]) -> Iterator[Violation]:
    """Limit the excused failures of one disturbance while a path is up: requests in flight, plus those sent within W."""
    spec = history.spec
    with_path = [r for r in excused if up.path_during(Stretch(r.sent_s, r.ended_s))]
    for disturbance in up.disturbances:
        failed = [r for r in with_path if disturbance.meets(Stretch(r.sent_s, r.ended_s))]
        in_flight = [r for r in history.requests if r.sent_s < disturbance.begin_s <= r.ended_s]
        sent = [r for r in history.requests if disturbance.begin_s <= r.sent_s <= disturbance.end_s]
        bursts = sum(not r.steady for r in sent)
        length_s = disturbance.end_s - disturbance.begin_s
        may_fail = len(in_flight) if spec.promises.in_flight == "may fail" else 0
        allowed = may_fail + spec.load.most_in(length_s) + bursts
        if len(failed) > allowed:
            yield violation_in(
                history,
                "error_window",
                _mostly(failed),
                disturbance.begin_s,
                f"{len(failed)} requests failed around one disturbance of {length_s:.1f} s, "
                f"at most {allowed:.0f} may",
                too_many=True,
            )


def _mostly(failed: list[Request]) -> str:
    """The class of failure that most requests belong to, while a path was up. Of equally frequent ones, it is the first by name."""
    counts = Counter(Signature("error_window", r.detail, "path left") for r in failed)
    most = min(counts, key=lambda one: (-counts[one], one.family))
    return f"{most.what} / {most.path}"


def recovery(history: History, up: Availability) -> Iterator[Violation]:
    """After heal, the first success comes within R1 seconds, and no request that is sent after R2 seconds fails."""
    promises = history.spec.promises
    healed_s = history.phase_began_s("recover")
    if healed_s is None or (history.plan.heal != "all" and not _path_left(history, up)):
        return
    first_s = min(
        (r.ended_s for r in history.requests if r.outcome == Outcome.OK and r.ended_s >= healed_s),
        default=None,
    )
    late_s = _first_ok_by_s(history, healed_s)
    if (first_s is None or first_s > late_s) and history.end_s >= late_s:
        seen = "none was seen" if first_s is None else f"it came after {first_s - healed_s:.1f} s"
        yield violation_in(
            history,
            "recovery",
            _instead_of_success(history, up, Stretch(healed_s, late_s)),
            late_s,
            f"no success within {promises.first_ok_s:g} s of heal: {seen}",
        )
    for request in _failed(history):
        if _is_for_recovery(history, request):
            life = Stretch(request.sent_s, request.ended_s)
            yield violation_in(
                history,
                "recovery",
                f"{request.detail} / {_path_word(up, life)}",
                request.ended_s,
                f"request {request.number} sent {request.sent_s - healed_s:.1f} s after heal "
                f"failed: {request.detail}",
                request.number,
            )


def _instead_of_success(history: History, up: Availability, window: Stretch) -> str:
    """Return the signature text of the most frequent failure in a window: a late success and late failures are one bug."""
    failed = [r for r in _failed(history) if window.begin_s <= r.sent_s <= window.end_s]
    if not failed:
        return "no answer"
    classes = Counter(
        Signature("recovery", r.detail, _path_word(up, Stretch(r.sent_s, r.ended_s)))
        for r in failed
    )
    most = classes.most_common(1)[0][0]
    return f"{most.what} / {most.path}"


def _path_left(history: History, up: Availability) -> bool:
    """True if a path was up from heal until a success was due. (A replica that dies with a killed child goes a little later.)"""
    healed_s = history.phase_began_s("recover") or 0.0
    until_s = min(_first_ok_by_s(history, healed_s), history.end_s)
    return up.path_during(Stretch(healed_s, max(healed_s, until_s)))


def _first_ok_by_s(history: History, healed_s: float) -> float:
    return healed_s + history.spec.promises.first_ok_s + history.spec.load.rest_s


def _is_for_recovery(history: History, request: Request) -> bool:
    """True if `recovery` judges this failure: the request was sent after the graph had its time to recover."""
    healed_s = history.phase_began_s("recover")
    if healed_s is None or history.plan.heal != "all":
        return False
    return "recovery" in history.spec.promises.made and (
        request.sent_s > healed_s + history.spec.promises.all_ok_s
    )


def blast_radius(history: History, up: Availability) -> Iterator[Violation]:
    """Only those processes die that a step aims at, and replicas that the graph file lets die with a killed child."""
    del up
    for death in history.of(Died):
        if death.aimed or _dies_with_a_child(history, death):
            continue
        yield violation_in(
            history,
            "blast_radius",
            f"{death.replica.role} died / {death.how}",
            death.at_s,
            f"{death.replica} (pid {death.pid}) died by itself with {death.how}",
        )


def _dies_with_a_child(history: History, death: Died) -> bool:
    for fault in history.faults():
        # A kill has landed when the child is gone. The replica that dies with it may be gone first.
        if fault.victim != death.replica or fault.begun_s > death.at_s:
            continue
        if fault.step.effect(history.spec) == "dooms":
            return True
    return False


def no_leak(history: History, up: Availability) -> Iterator[Violation]:
    """After the load, the graph leaks nothing: no orphan, no LISTEN socket of a dead replica, and no gauge above 0."""
    del up
    for leak in history.of(Leaked):
        yield violation_in(history, "no_leak", leak.kind, leak.at_s, leak.what)


BUILT_IN: Final[dict[str, Promise]] = {
    "ends": ends,
    "answers": answers,
    "error_window": error_window,
    "recovery": recovery,
    "throughput": throughput,
    "blast_radius": blast_radius,
    "views_agree": views_agree,
    "no_leak": no_leak,
}


def _failed(history: History) -> list[Request]:
    """Return the failures that `error_window` and `recovery` judge. A request that timed out belongs to `ends`, if it is promised."""
    judged_by_ends = {Outcome.TIMED_OUT} if "ends" in history.spec.promises.made else set()
    return [r for r in history.ended() if r.outcome in FAILED - judged_by_ends]


def promises_of(spec: GraphSpec) -> dict[str, Promise]:
    """Return the promises of a graph by name: the built-in ones and the user's own.

    Raises:
        InputError: if a promise of the user can't be imported.
    """
    made = {name: BUILT_IN[name] for name in spec.promises.made}
    return made | {name: _imported(spec, name) for name in spec.promises.extra}


def _imported(spec: GraphSpec, name: str) -> Promise:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{spec.path.name}: promises.extra: {name}: {error}") from None
    if not callable(found):
        raise InputError(f"{spec.path.name}: promises.extra: {name}: is not a function")
    return cast("Promise", found)


def not_judged(history: History) -> dict[str, str]:
    """Return the promises that a run cannot test, each with the reason."""
    early = "the run ended before that"
    needs: dict[str, Phase] = {"recovery": "recover", "throughput": "drain", "no_leak": "drain"}
    found = {name: early for name, phase in needs.items() if history.phase_began_s(phase) is None}
    if history.plan.heal != "all":
        if not _path_left(history, availability(history)):
            found["recovery"] = "no path was left, and dead replicas stay dead"
        if queueing(history, history.phase_began_s("drain") or history.end_s) is None:
            found["throughput"] = (
                "the remaining replicas can do less, and the file does not say how much"
            )
    return {name: why for name, why in found.items() if name in history.spec.promises.made}


def judge(history: History) -> Verdict:
    """Return the verdict of one run.

    A violation before the first cause makes the run broken. Violations after it are not proof.

    Raises:
        InputError: if a promise of the user can't be imported.
    """
    up = availability(history)
    violations = sorted(
        (v for promise in promises_of(history.spec).values() for v in promise(history, up)),
        key=lambda v: v.at_s,
    )
    causes = sorted(_causes(history))
    if causes:
        violations = [v for v in violations if v.at_s < causes[0][0]]
    weak = _weak(history, up)
    if violations:
        return Verdict("broken", tuple(violations), weak=weak)
    if causes:
        return Verdict("invalid", causes=tuple(cause for _, cause in causes))
    return Verdict("kept", weak=weak)


def _weak(history: History, up: Availability) -> bool:
    ended = [r for r in history.requests if r.outcome and r.outcome != Outcome.LEFT]
    return sum(map(up.judgeable, ended)) < JUDGED_SHARE_MIN * len(ended)


def _causes(history: History) -> Iterator[tuple[float, str]]:
    """Yield each cause that makes the run invalid, after the time from which it does."""
    plan_s = history.phase_began_s("plan")
    for request in history.requests:
        if request.failed and (plan_s is None or request.ended_s < plan_s):
            yield request.ended_s, f"baseline failed: {request.detail}"
            break
    for step in history.of(StepDone):
        if not step.landed:
            yield step.at_s, f'"{step.step}" did not land: {step.proof}'
    for event in history.of(Invalidated):
        yield event.at_s, event.cause
    sent = [r for r in history.requests if r.outcome]
    late = [r for r in sent if r.sent_s - r.intended_s > LATE_S]
    if len(late) > LATE_SHARE_MAX * len(sent):
        cause = f"client late: {len(late)} of {len(sent)} requests left over {LATE_S:g} s too late"
        yield min(r.intended_s for r in late), cause

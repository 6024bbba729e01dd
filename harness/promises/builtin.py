"""The built-in promises of a graph. `judgement` applies them to a history.

Each promise is a pure function of a history and its availability. It yields one `Violation` for each place where it does not hold. One
promise judges the outcome of a request, so that the same outcome is never two findings:

- `honest` judges answers with status 200 that are cut short, empty or from another request,
- `answers` judges all other wrong answers, which include any answer to a prompt that is too long,
- `ends` judges requests that reached their deadline,
- `drain` judges failures of requests that were in flight when a replica got SIGTERM, if the graph makes this promise,
- `refusals_are_cheap` judges failures after requests that must be refused, if nothing else has happened,
- `recovery` judges failures of requests that were sent after the time for recovery was over,
- `error_window` judges all other failures.

In addition, `ends` judges how long a request got no byte, whatever its outcome. If a graph does not promise `ends`, the last two judge
requests that reached their deadline.

A history may be judged while its run still goes on (an early verdict). So a promise yields only violations that no later event can undo.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from graphquake.harness.history.events import Leaked, Phase, StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.request import (
    FAILED,
    Outcome,
    Request,
)
from graphquake.harness.promises.availability import (
    Availability,
    Stretch,
    availability,
    unimpaired,
    whole_s,
)
from graphquake.harness.promises.clients.collapse import collapse
from graphquake.harness.promises.clients.drain import drain, lost_by_drains
from graphquake.harness.promises.clients.honest import honest, is_dishonest
from graphquake.harness.promises.clients.refusals import refusals_are_cheap, spoiled
from graphquake.harness.promises.own import OwnPromise
from graphquake.harness.promises.replicas.blast_radius import blast_radius
from graphquake.harness.promises.replicas.no_growth import no_growth
from graphquake.harness.promises.replicas.no_panic import no_panic
from graphquake.harness.promises.signature import PathWord, Signature
from graphquake.harness.promises.throughput import queueing, throughput
from graphquake.harness.promises.verdict import Violation, violation_in
from graphquake.harness.promises.views import views_agree
from graphquake.harness.spec.bounds import own_name
from graphquake.harness.spec.graph import GraphSpec

Promise: TypeAlias = Callable[[History, Availability], Iterable[Violation]]


def _path_word(up: Availability, life: Stretch) -> PathWord:
    return "path left" if up.path_during(life) else "no path"


def ends(history: History, up: Availability) -> Iterator[Violation]:
    """While a path is up, no request reaches its deadline, and none waits for its next byte for `stall_s` seconds or longer."""
    up = unimpaired(history, up)
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
    """True if a path was up for at least `stall_s` seconds without a break within `quiet`, an interval in which no byte came."""
    return any(
        min(quiet.end_s, path.end_s) - max(quiet.begin_s, path.begin_s) >= stall_s
        for path in up.paths
    )


def answers(history: History, up: Availability) -> Iterator[Violation]:
    """Each complete answer is right: no token is lost, repeated, or from another request. No fault excuses a wrong answer."""
    del up
    for request in history.requests:
        if request.outcome == Outcome.WRONG and not is_dishonest(history, request):
            yield violation_in(
                history,
                "answers",
                request.detail,
                request.ended_s,
                f"request {request.number}: {request.message}",
                request.number,
            )


def error_window(history: History, up: Availability) -> Iterator[Violation]:
    """Each failure is excused by a recent fault or by an outage, and each disturbance excuses only a limited number of failures."""
    excused: list[Request] = []
    whole = unimpaired(history, up)
    for request in _failed(history, up):
        if _is_for_recovery(history, request):
            continue
        life = Stretch(request.sent_s, request.ended_s)
        fault = _survived_by(history, whole, life)
        if fault is None and up.excuses(request):
            excused.append(request)
            continue
        while_ = f', in flight when "{fault.step}" began,' if fault else ""
        yield violation_in(
            history,
            "error_window",
            f"{request.detail} / {_path_word(up, life)}",
            request.ended_s,
            f"request {request.number} sent at {request.sent_s:.2f} s{while_} failed after "
            f"{request.latency_s:.2f} s: {request.detail}",
            request.number,
        )
    yield from _too_many(history, up, excused)


def _survived_by(history: History, up: Availability, life: Stretch) -> StepDone | None:
    """Return the fault that a request must survive: one that began during its life, while a path was up for all of its life.

    None if the graph does not promise that. Also None if a fault ended or stalled a replica of the entry role in that time. A client's
    connection ends with the entry that holds it, and no graph can save it.
    """
    if history.spec.promises.in_flight != "must survive" or not up.path_during(life):
        return None
    met = [one for one in history.faults() if life.begin_s < one.begun_s <= life.end_s]
    entry = history.spec.entry_role.name
    if any(entry in one.step.roles and one.step.effect(history.spec) != "nothing" for one in met):
        return None
    return met[0] if met else None


def _too_many(history: History, up: Availability, excused: list[Request]) -> Iterator[Violation]:
    """Yield a violation for each disturbance with more excused failures than allowed. Only failures while a path was up count.

    The limit is the number of steady requests that can fail in the disturbance (`LoadSpec.most_in`), plus its burst requests. In an open
    loop, `spare_failures` is added. If `in_flight` is `may fail`, the requests that were in flight when the disturbance began are added.
    """
    spec = history.spec
    with_path = [r for r in excused if up.path_during(Stretch(r.sent_s, r.ended_s))]
    for disturbance in up.disturbances:
        failed = [r for r in with_path if disturbance.meets(Stretch(r.sent_s, r.ended_s))]
        in_flight = [r for r in history.requests if r.sent_s < disturbance.begin_s <= r.ended_s]
        sent = [r for r in history.requests if disturbance.begin_s <= r.sent_s <= disturbance.end_s]
        bursts = sum(not r.steady for r in sent)
        length_s = disturbance.end_s - disturbance.begin_s
        may_fail = len(in_flight) if spec.promises.in_flight == "may fail" else 0
        spare = 0 if spec.load.clients else spec.promises.spare_failures
        allowed = may_fail + spec.load.most_in(length_s) + spare + bursts
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
    """Return the rest of a signature for some failed requests: their most frequent class, with `path left`.

    If several classes are equally frequent, the first one in alphabetical order of the families is returned.
    """
    counts = Counter(Signature("error_window", r.detail, "path left") for r in failed)
    most = min(counts, key=lambda one: (-counts[one], one.family))
    return f"{most.what} / {most.path}"


def recovery(history: History, up: Availability) -> Iterator[Violation]:
    """After heal, a right answer comes within R1 seconds, and no request fails that is sent more than R2 seconds after heal.

    R1 is `first_ok_s`, and R2 is `all_ok_s`. For closed-loop clients, R1 is longer by their pause after a failure. If dead replicas stay
    dead, the promise is judged only if a path was up, and `error_window` judges the failures.
    """
    promises = history.spec.promises
    healed_s = whole_s(history)
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
    for request in _failed(history, up):
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
    """Return the rest of a signature: the most frequent class of failures among requests sent in a window, with the path.

    So a late first success and a late failure have equal signatures if both have the same class and path.
    """
    failed = [r for r in _failed(history, up) if window.begin_s <= r.sent_s <= window.end_s]
    if not failed:
        return "no answer"
    classes = Counter(
        Signature("recovery", r.detail, _path_word(up, Stretch(r.sent_s, r.ended_s)))
        for r in failed
    )
    most = classes.most_common(1)[0][0]
    return f"{most.what} / {most.path}"


def _path_left(history: History, up: Availability) -> bool:
    """True if a path was up during the whole time from heal until the first success was due, R1 seconds later.

    The path at heal alone is not enough, because a replica that dies with its killed child may die a little later.
    """
    healed_s = whole_s(history) or 0.0
    until_s = min(_first_ok_by_s(history, healed_s), history.end_s)
    return up.path_during(Stretch(healed_s, max(healed_s, until_s)))


def _first_ok_by_s(history: History, healed_s: float) -> float:
    return healed_s + history.spec.promises.first_ok_s + history.spec.load.rest_s


def _is_for_recovery(history: History, request: Request) -> bool:
    """True if `recovery` judges this failure: the request was sent more than R2 (`all_ok_s`) seconds after heal."""
    healed_s = whole_s(history)
    if healed_s is None or history.plan.heal != "all":
        return False
    return "recovery" in history.spec.promises.made and (
        request.sent_s > healed_s + history.spec.promises.all_ok_s
    )


def no_leak(history: History, up: Availability) -> Iterator[Violation]:
    """After the load, the graph has no leak: no leftover process, socket or GPU memory, and no gauge above 0."""
    del up
    for leak in history.of(Leaked):
        yield violation_in(history, "no_leak", leak.kind, leak.at_s, leak.what)


BUILT_IN: Final[dict[str, Promise]] = {
    "ends": ends,
    "answers": answers,
    "honest": honest,
    "drain": drain,
    "error_window": error_window,
    "recovery": recovery,
    "throughput": throughput,
    "collapse": collapse,
    "refusals_are_cheap": refusals_are_cheap,
    "blast_radius": blast_radius,
    "no_panic": no_panic,
    "no_growth": no_growth,
    "views_agree": views_agree,
    "no_leak": no_leak,
}


def _failed(history: History, up: Availability) -> list[Request]:
    """Return the failures that `error_window` and `recovery` judge: those that no other promise judges."""
    judged_by_ends = {Outcome.TIMED_OUT} if "ends" in history.spec.promises.made else set()
    failed = (r for r in history.ended() if r.outcome in FAILED - judged_by_ends)
    others = {id(request) for request, _, _ in lost_by_drains(history, up)}
    others |= set(map(id, spoiled(history, up)))
    return [r for r in failed if not is_dishonest(history, r) and id(r) not in others]


def promises_of(spec: GraphSpec) -> dict[str, Promise]:
    """Return the promises of a graph by name: the built-in promises that its file does not turn off, and the user's own promises.

    Raises:
        InputError: if a promise of the user can't be imported, or can't be called with a history and its availability.
    """
    made = {name: BUILT_IN[name] for name in spec.promises.made}
    return made | {own_name(name): OwnPromise(spec, name) for name in spec.promises.extra}


def not_judged(history: History) -> dict[str, str]:
    """Return the promises of the graph that this run can't test: name -> reason."""
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

"""Promises on made histories with known windows."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquake.harness.history.events import Leaked
from graphquake.harness.history.request import (
    Outcome,
)
from graphquake.harness.promises.availability import Stretch, availability, union, up_stretches
from graphquake.harness.promises.builtin import not_judged
from graphquake.harness.promises.judgement import judge
from graphquake.harness.spec.replica import Replica

from support.made import Made, healthy, plan_of, says, spec_of

pytestmark = pytest.mark.simulated


def test_a_run_in_which_nothing_fails_is_kept() -> None:
    """A run in which all answers are right and no process dies is kept."""
    assert says(healthy()) == ("kept", ())


@pytest.mark.parametrize(("sent_s", "expected"), [(3.9, "kept"), (4.5, "broken")])
def test_a_failure_is_excused_only_within_the_window_of_a_fault(
    sent_s: float, expected: str
) -> None:
    """With W = 2 s, a kill at 2 s excuses a failure at 4 s, but not one at 4.6 s."""
    made = healthy().step("kill decode 0", 2.0).ask(sent_s, outcome=Outcome.ERROR)
    assert says(made)[0] == expected


def test_the_signature_names_promise_outcome_and_whether_a_path_was_left() -> None:
    """Two runs of the same bug have the same signature, although ids and times differ."""
    made = healthy().step("kill decode 0", 2.0).ask(5.0, outcome=Outcome.ERROR)
    assert says(made) == ("broken", ("error_window / HTTP 503 / path left",))


def test_a_process_that_is_dying_disturbs_before_it_is_gone() -> None:
    """A failure between a SIGKILL and the end of its process is excused, because its sockets close in between."""
    made = healthy().step("kill frontend 0", 2.07, begun_s=2.0)
    made.spawn("frontend 0", 2.2, ready_s=2.4).ask(1.9, 2.03, Outcome.ERROR, "connection lost")
    assert says(made)[0] == "kept"


def test_a_request_in_flight_at_the_end_of_the_window_has_a_moment_to_notice() -> None:
    """A request that was in flight in the window is excused if it fails within 0.25 s after it, and not later."""
    excused = healthy().step("kill decode 0", 2.0).ask(3.9, 4.2, Outcome.ERROR)
    assert says(excused)[0] == "kept"
    late = healthy().step("kill decode 0", 2.0).ask(3.9, 4.6, Outcome.ERROR)
    assert says(late)[0] == "broken"


def test_an_outage_is_excused_until_r1_after_its_end() -> None:
    """An outage from 2 s to 6 s excuses failures until 9 s, but not one at 9.6 s."""

    def made() -> Made:
        return (
            healthy()
            .step("kill decode 0", 2.0)
            .step("kill decode 1", 2.0, number=1)
            .spawn("decode 0", 5.0, ready_s=6.0)
        )

    assert says(made().ask(5.0, outcome=Outcome.ERROR).ask(8.5, outcome=Outcome.ERROR))[0] == "kept"
    assert says(made().ask(9.5, outcome=Outcome.ERROR)) == (
        "broken",
        ("error_window / HTTP 503 / path left",),
    )


def test_the_only_frontend_killed_is_an_outage() -> None:
    """While the only frontend is dead, refused connections break no promise."""
    made = healthy().step("kill frontend 0", 2.0).spawn("frontend 0", 3.0, ready_s=6.0)
    assert says(made.ask(4.8, 4.81, Outcome.REFUSED, "connection refused"))[0] == "kept"


def test_a_path_exists_only_while_an_entry_is_up_and_every_role_has_a_replica() -> None:
    """The paths of a history with two outages are exactly the gaps between them."""
    made = healthy().step("kill prefill 0", 2.0).spawn("prefill 0", 2.5, ready_s=3.0)
    made.step("kill frontend 0", 5.0, number=1).spawn("frontend 0", 5.5, ready_s=6.0)
    up = availability(made.history())
    assert next((p.begin_s, p.end_s) for p in up.paths)[1] == 2.0
    assert [(p.begin_s, p.end_s) for p in up.paths[1:-1]] == [(3.0, 5.0)]
    assert up.paths[-1].begin_s == 6.0


def test_overlapping_faults_excuse_like_one_long_fault() -> None:
    """Two kills at 2 s and 3.5 s merge into one window from 2 s to 5.5 s."""
    made = healthy().step("kill decode 0", 2.0).spawn("decode 0", 2.5, ready_s=3.0)
    made.step("kill decode 1", 3.5, number=1)
    up = availability(made.history())
    assert [(d.begin_s, d.end_s) for d in up.disturbances] == [(2.0, 5.5)]


def test_more_failures_than_were_sent_in_the_window_are_too_many() -> None:
    """With 20 requests/s and W = 2 s, at most 42 failures are excused while a path is up."""
    made = healthy().step("kill decode 0", 2.0)
    for _ in range(43):
        made.ask(2.5, outcome=Outcome.ERROR)
    assert says(made) == ("broken", ("error_window / HTTP 503 / path left",))
    assert judge(made.history()).violations[0].too_many


@pytest.mark.parametrize(
    ("spare", "failures", "expected"),
    [(0, 1, "broken"), (2, 2, "kept"), (2, 3, "broken"), (5, 5, "kept")],
)
def test_a_window_of_zero_excuses_only_the_spare_failures(
    spare: int, failures: int, expected: str
) -> None:
    """With `window_s = 0`, a fault excuses `spare_failures` failures, and no more."""
    window = {"window_s": 0, "spare_failures": spare}
    made = healthy(promises={"error_window": window}).step("kill decode 0", 2.0)
    for _ in range(failures):
        made.ask(1.95, outcome=Outcome.ERROR)
    assert says(made)[0] == expected


@pytest.mark.parametrize(
    ("in_flight", "kill", "sent_s", "expected"),
    [
        ("must survive", "kill decode 0", 1.95, "broken"),
        ("must survive", "kill decode 0", 2.5, "kept"),
        ("must survive", "kill prefill 0", 1.95, "kept"),
        ("must survive", "kill frontend 0", 1.95, "kept"),
        ("must survive", "kill frontend 0 helper", 1.95, "broken"),
        ("like others", "kill decode 0", 1.95, "kept"),
        ("may fail", "kill decode 0", 1.95, "kept"),
    ],
)
def test_what_must_survive_is_not_excused_by_a_window(
    in_flight: str, kill: str, sent_s: float, expected: str
) -> None:
    """A request in flight when a fault begins must not fail while a path is left, unless the entry that holds its connection dies."""
    roles = dict(spec_of().document["roles"])
    roles["frontend"] |= {"replicas": 2}
    made = healthy(roles=roles, promises={"error_window": {"in_flight": in_flight}})
    made.step(kill, 2.0).ask(sent_s, outcome=Outcome.ERROR)
    assert says(made)[0] == expected
    if expected == "broken":
        assert f'in flight when "{kill}" began' in judge(made.history()).violations[0].seen


def test_too_many_failures_are_signed_by_the_class_of_most_of_them() -> None:
    """Too many failures get the class of the largest family among them, so that one late failure has the same signature."""
    made = healthy().step("kill decode 0", 2.0)
    for _ in range(20):
        made.ask(2.5, outcome=Outcome.ERROR, detail="connection refused")
    for detail in ("HTTP 503", "error event 503"):
        for _ in range(12):
            made.ask(2.5, outcome=Outcome.ERROR, detail=detail)
    assert says(made)[1] == ("error_window / HTTP 503 / path left",)


@pytest.mark.parametrize(
    ("kill", "replica", "says_"),
    [
        ("kill frontend 0", "frontend 0", "kept"),
        ("kill frontend 0 process", "frontend 0", "kept"),
        ("kill decode 0", "decode 0", "broken"),
    ],
)
def test_a_failure_with_the_only_replica_of_a_role_has_no_path_left(
    kill: str, replica: str, says_: str
) -> None:
    """Requests in flight at the kill of the only frontend are excused, because no path is up from the begin of the kill."""
    made = healthy().step(kill, 2.03, begun_s=2.0)
    if kill.endswith("process"):
        made.dies(replica, 2.03, aimed=True)
    for _ in range(100):
        made.ask(1.95, 2.01, Outcome.ERROR, "connection lost")
    assert says(made)[0] == says_


@pytest.mark.parametrize(
    ("kill", "died_s", "down_s"),
    [
        ("kill prefill 0 process", 2.05, 2.0),
        ("kill prefill 0 process", 9.0, 9.0),
        ("kill prefill 0 engine", 2.05, 2.0),
        ("kill prefill 0 engine", 9.0, 9.0),
        ("kill prefill 0 helper", 2.05, 2.05),
    ],
)
def test_a_killed_replica_is_down_from_the_begin_of_the_kill(
    kill: str, died_s: float, down_s: float
) -> None:
    """A replica that dies with a killed child is down from the begin of the kill. A much later death is not part of the kill."""
    prefill = {"command": "prefill", "children": {"engine": "e", "helper": "h"}}
    roles = {
        "frontend": {"command": "frontend", "entry": "http://127.0.0.1:{port.http}"},
        "prefill": prefill | {"dies_with": ["engine"]},
        "decode": {"command": "decode", "replicas": 2},
    }
    made = healthy(roles=roles).step(kill, 2.0).dies("prefill 0", died_s)
    ups = up_stretches(made.history())[Replica("prefill", 0)]
    assert [stretch.end_s for stretch in ups] == [down_s]


def test_a_burst_in_the_window_may_fail_with_it() -> None:
    """The limit on failures in the window does not count failures of a burst in that window."""
    made = healthy().step("kill decode 0", 2.0)
    for _ in range(43):
        made.ask(2.5, outcome=Outcome.ERROR, group="burst 1")
    assert says(made)[0] == "kept"


def test_shed_and_left_requests_are_not_failures() -> None:
    """Requests that are shed at once under a burst, and clients that leave, break no promise."""
    made = (
        healthy().ask(5.0, outcome=Outcome.SHED, detail="HTTP 429").ask(5.0, outcome=Outcome.LEFT)
    )
    assert says(made)[0] == "kept"


def test_a_wrong_answer_breaks_answers_at_once_even_in_the_baseline() -> None:
    """A wrong answer breaks `answers`, also right after a fault."""
    made = healthy().ask(0.5, outcome=Outcome.WRONG, detail="wrong tokens")
    assert says(made) == ("broken", ("answers / wrong tokens",))


def test_silence_while_a_path_is_there_breaks_ends() -> None:
    """A request without a byte for 3.5 s breaks `ends` while a path is up, but not in an outage."""
    assert says(healthy().ask(4.0, 8.0, quiet=(4.2, 7.7)))[1] == ("ends / no byte / path left",)
    dead = healthy().step("kill prefill 0", 4.0).spawn("prefill 0", 7.0, ready_s=8.0)
    assert says(dead.ask(4.0, 8.0, quiet=(4.2, 7.7)))[0] == "kept"


def test_a_request_that_reaches_its_deadline_is_for_ends_alone() -> None:
    """A request that times out breaks `ends` only: its timeout is not a second finding."""
    made = (
        healthy()
        .step("kill decode 0", 2.0)
        .ask(3.0, 11.0, Outcome.TIMED_OUT, "deadline", quiet=(3.0, 11.0))
    )
    assert says(made)[1] == ("ends / no byte / path left",)


def test_recovery_wants_a_success_within_r1_of_heal() -> None:
    """With a heal at 3 s and R1 = 3 s, a first success at 6.5 s is too late, and one at 5.9 s is not."""

    def made(first_ok_s: float) -> Made:
        start = Made().steady(0.0, 2.0).step("kill frontend 0", 2.0).phase("heal", 3.0)
        start.spawn("frontend 0", 3.0, ready_s=3.5).phase("recover", 3.0)
        return start.steady(first_ok_s, 12.0)

    assert says(made(5.8))[0] == "kept"
    assert says(made(6.5)) == ("broken", ("recovery / no answer",))
    failing = made(6.5).ask(3.6, 3.7, Outcome.ERROR)
    assert says(failing) == ("broken", ("recovery / HTTP 503 / path left",))


def test_nothing_fails_after_r2() -> None:
    """A failure of a request that is sent more than 5 s after heal breaks `recovery` only."""
    made = healthy().step("kill decode 0", 2.0).phase("heal", 3.0).phase("recover", 3.0)
    assert says(made.ask(9.0, outcome=Outcome.ERROR))[1] == ("recovery / HTTP 503 / path left",)


def test_only_the_victim_dies() -> None:
    """An unexpected death breaks `blast_radius`. The death of a victim does not."""
    assert says(healthy().step("kill decode 0", 2.0))[0] == "kept"
    made = healthy().step("kill decode 0", 2.0).dies("prefill 0", 2.3, status=1)
    assert says(made)[1] == ("blast_radius / prefill died / exit status 1",)


def test_a_replica_that_dies_with_its_child_by_design_is_not_a_violation() -> None:
    """A worker may die with a killed child that `dies_with` names, but not with another child."""

    def made(dies_with: list[str]) -> Made:
        roles = {
            "frontend": {"command": "f", "entry": "http://127.0.0.1:{port.http}"},
            "prefill": {"command": "p"},
            "decode": {
                "command": "d",
                "replicas": 2,
                "children": {"engine": "E"},
                "dies_with": dies_with,
            },
        }
        return (
            healthy(roles=roles).step("kill decode 0 engine", 2.0).dies("decode 0", 2.4, status=0)
        )

    assert says(made(["engine"]))[0] == "kept"
    assert says(made([]))[1] == ("blast_radius / decode died / exit status 0",)


def test_a_leak_after_drain_breaks_no_leak() -> None:
    """Leaks of different kinds have different signatures."""
    made = healthy()
    made.events += [
        Leaked(12.5, "process", "pid 7 of decode 0"),
        Leaked(12.5, "gauge", "inflight = 3"),
    ]
    assert says(made) == ("broken", ("no_leak / process", "no_leak / gauge"))


def test_a_promise_that_is_not_made_is_not_judged() -> None:
    """A promise that the graph file turns off is not judged."""
    promises = {"error_window": False, "recovery": False}
    made = healthy(promises=promises).step("kill decode 0", 2.0).ask(7.0, outcome=Outcome.ERROR)
    assert says(made)[0] == "kept"


def test_the_promises_do_not_depend_on_the_plan_that_was_asked_for() -> None:
    """A respawned replica that never became ready counts as down, because availability is read from events."""
    made = Made(plan=plan_of("kill prefill 0", "respawn prefill 0")).steady(0.0, 12.0)
    made.step("kill prefill 0", 2.0).step("respawn prefill 0", 2.1, number=1).spawn(
        "prefill 0", 2.1
    )
    up = availability(made.history())
    assert up.outages[-1].begin_s == 2.0
    assert up.outages[-1].end_s >= 12.0


times = st.floats(0, 100, allow_nan=False)
stretches = st.lists(st.tuples(times, times).map(lambda ab: Stretch(min(ab), max(ab))), max_size=8)


@given(stretches, times)
def test_a_union_holds_the_same_moments_in_order(parts: list[Stretch], at_s: float) -> None:
    """A moment is in the union if and only if it is in a part, and the intervals of the union do not touch."""
    merged = union(parts)
    moment = Stretch(at_s, at_s)
    assert any(s.holds(moment) for s in merged) == any(s.holds(moment) for s in parts)
    assert all(a.end_s < b.begin_s for a, b in itertools.pairwise(merged))


@given(st.lists(st.floats(1.5, 10), max_size=4), st.floats(1.0, 11.5))
def test_a_failure_is_excused_exactly_within_w_of_some_fault(
    faults: list[float], sent_s: float
) -> None:
    """A failure is excused if and only if the definition of the window says so."""
    made = healthy()
    for number, at_s in enumerate(sorted(faults)):
        made.step("kill decode 0 process", at_s, number=number)
    failed_s = sent_s + 0.1
    made.ask(sent_s, failed_s, Outcome.ERROR)
    up = availability(made.history())
    components = union(Stretch(t, t + 2.0) for t in faults)
    expected = any(
        c.begin_s <= failed_s and sent_s <= c.end_s and failed_s <= c.end_s + 0.25
        for c in components
    )
    assert up.excuses(made.requests[-1]) == expected


def test_promises_that_a_run_does_not_judge() -> None:
    """If dead replicas stay dead, `recovery` and `throughput` are not judged without a path or without known capacities."""
    made = Made(plan=plan_of("kill frontend 0", "heal release")).steady(0.0, 2.0)
    made.step("kill frontend 0", 2.0).phase("heal", 2.1).phase("recover", 2.1).phase("drain", 9.0)
    assert set(not_judged(made.history())) == {"recovery", "throughput"}
    made.plan = plan_of("kill frontend 0")
    assert not_judged(made.history()) == {}
    cut = Made(plan=plan_of("kill frontend 0")).steady(0.0, 2.0).step("kill frontend 0", 2.0)
    assert set(not_judged(cut.history())) == {"recovery", "throughput", "no_leak"}


@pytest.mark.parametrize(("dies_s", "expected"), [(2.3, ()), (None, ("recovery / no answer",))])
def test_a_path_that_ends_with_its_child_is_not_a_path(
    dies_s: float | None, expected: tuple[str, ...]
) -> None:
    """If dead replicas stay dead, a worker that dies a little after its engine leaves no path, so `recovery` is not judged."""
    made = Made(
        spec_of(promises={"blast_radius": False}), plan_of("kill prefill 0", "heal release")
    )
    made.steady(0.0, 1.8).step("kill prefill 0 process", 2.0).phase("heal", 2.1)
    made.phase("recover", 2.1)
    if dies_s is not None:
        made.dies("prefill 0", dies_s)
    made.phase("steady", 8.0).phase("drain", 9.0)
    assert says(made)[1] == expected

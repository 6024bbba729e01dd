"""Tests of `throughput`: a steady graph does as much as before, without refused, piled-up or slow requests."""

from __future__ import annotations

import pytest

from graphquake.harness.history.request import (
    Group,
    Outcome,
)
from graphquake.harness.promises.judgement import judge

from support.made import Made, plan_of, spec_of

pytestmark = pytest.mark.simulated

STEADY_S = 5.0


def recovered(every_s: float = 0.05, latency_s: float = 0.1, end_s: float = 15.0) -> Made:
    """Build a kill at 1.5 s that heals, and a steady phase with requests of this latency."""
    made = Made(plan=plan_of("kill decode 0")).steady(0.0, STEADY_S).step("kill decode 0", 1.5)
    made.spawn("decode 0", 1.6, ready_s=2.0).phase("heal", 1.6).phase("recover", 1.6)
    for number in range(round((end_s - STEADY_S) / every_s)):
        sent_s = STEADY_S + number * every_s
        made.ask(sent_s, sent_s + latency_s)
    return made.phase("steady", STEADY_S).phase("drain", end_s)


def signatures(made: Made) -> tuple[str, ...]:
    """Return the signatures of the violations."""
    return tuple(map(str, judge(made.history()).signatures))


def test_a_graph_that_does_as_much_as_before_is_kept() -> None:
    """A graph that serves twice the requests at 1.4 times the latency keeps its throughput."""
    assert signatures(recovered(every_s=0.025, latency_s=0.14)) == ()


@pytest.mark.parametrize(("shed", "expected"), [(2, ()), (3, ("throughput / shed",))])
def test_requests_that_are_shed_while_steady(shed: int, expected: tuple[str, ...]) -> None:
    """One percent of the steady requests may be shed, and not more."""
    made = recovered()
    for number in range(shed):
        made.ask(8.0 + number, outcome=Outcome.SHED, detail="HTTP 429")
    assert signatures(made) == expected
    for request in made.requests:
        if request.outcome == Outcome.SHED:
            request.outcome, request.group = Outcome.OK, Group("burst", 1)
    assert signatures(made) == ()


@pytest.mark.parametrize(("latency_s", "expected"), [(0.19, ()), (0.21, ("throughput / slower",))])
def test_a_graph_that_became_slow(latency_s: float, expected: tuple[str, ...]) -> None:
    """The p90 of the latency may be one and a half times that of the baseline plus 50 ms, and not more."""
    assert signatures(recovered(latency_s=latency_s)) == expected


def test_a_burst_may_make_others_wait() -> None:
    """Requests that are shed while a burst is in the graph do not count. Those that are shed later do."""
    made = recovered()
    late = [r for r in made.requests if r.sent_s > STEADY_S][:20]
    for request in late:
        request.outcome, request.detail = Outcome.SHED, "HTTP 429"
    assert signatures(made) == ("throughput / shed",)
    made.ask(STEADY_S - 1, late[-1].ended_s + 0.1, group="burst 0")
    assert signatures(made) == ()


def test_a_graph_that_falls_behind() -> None:
    """A graph whose requests take longer and longer falls behind."""
    made = recovered()
    for request in made.requests:
        if request.sent_s > STEADY_S:
            request.ended_s = request.sent_s + 0.1 + (request.sent_s - STEADY_S) * 0.3
    assert "throughput / falls behind" in signatures(made)


@pytest.mark.parametrize(
    ("latency_s", "expected"), [(0.9, ()), (1.4, ("throughput / falls behind",))]
)
def test_a_short_phase_in_which_answers_become_slower(
    latency_s: float, expected: tuple[str, ...]
) -> None:
    """Slower answers leave more requests in flight at the end. Within the allowed latency, that is not falling behind."""
    made = recovered(end_s=STEADY_S + 2.6)
    for request in made.requests:
        slow = request.sent_s >= STEADY_S + 1
        request.ended_s = request.sent_s + (latency_s if slow else 0.6)
    assert signatures(made) == expected


def test_a_steady_phase_without_those_who_died_is_not_judged() -> None:
    """If dead replicas stay dead and no capacity is known, throughput is not judged."""
    made = recovered(latency_s=0.5)
    assert signatures(made) == ("throughput / slower",)
    made.dies("decode 0", 1.5, aimed=True)
    made.plan = plan_of("kill decode 0", "heal release")
    assert signatures(made) == ()


@pytest.mark.parametrize(
    ("capacity", "latency_s", "expected"),
    [
        (None, 0.9, ()),  # the capacity of a decode worker is not known
        (4, 0.33, ()),  # half of the replicas: each does twice as much, and may take twice as long
        (4, 0.38, ("throughput / slower",)),
    ],
)
def test_bounds_follow_the_capacity_that_is_left(
    capacity: int | None, latency_s: float, expected: tuple[str, ...]
) -> None:
    """If one of two decode replicas stays dead, the capacity of the other one decides how slow the graph may be."""
    roles = {
        "frontend": {"command": "f", "entry": "http://127.0.0.1:{port.http}"},
        "prefill": {"command": "p"},
        "decode": {"command": "d", "replicas": 2} | ({"capacity": capacity} if capacity else {}),
    }
    made = Made(spec_of(roles=roles), plan_of("kill decode 0", "heal release"))
    made.steady(0.0, STEADY_S).step("kill decode 0", 1.5).phase("heal", 1.6).phase("recover", 1.6)
    for number in range(300):
        sent_s = STEADY_S + number * 0.05
        made.ask(sent_s, sent_s + latency_s)
    made.phase("steady", STEADY_S).phase("drain", STEADY_S + 15.0 + latency_s)
    assert signatures(made) == expected

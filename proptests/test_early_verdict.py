"""Tests of early verdicts: judging during a run must not make the clients late, and must see only certain facts."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path

import pytest

from graphquake.harness.history.events import StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.request import (
    STEADY,
    Outcome,
    Request,
)
from graphquake.harness.run.early_verdict import (
    ASK_AT_LEAST_EVERY_S,
    PAUSE_FACTOR,
    EarlyVerdict,
    short_switch_interval,
)
from graphquake.harness.run.execute import execute
from graphquake.harness.run.request_trail import RequestTrail
from graphquake.harness.spec.load import LoadSpec

from support.fake_target import FakeTargets, fake_spec
from support.made import Made, plan_of
from support.toys import in_loop

REQUESTS = 60_000
IN_FLIGHT = 100


def request(number: int, outcome: Outcome | None = None, ended_s: float = 0.0) -> Request:
    """A request that was sent every millisecond."""
    return Request(
        number, STEADY, stream=False, intended_s=number / 1e3, ended_s=ended_s, outcome=outcome
    )


def long_trail() -> RequestTrail:
    """A minute of 1,000 requests a second. The last ones are still in flight."""
    requests = [request(n, Outcome.OK, n / 1e3 + 0.1) for n in range(REQUESTS - IN_FLIGHT)]
    requests += [request(n) for n in range(REQUESTS - IN_FLIGHT, REQUESTS)]
    trail = RequestTrail(requests)
    trail.follow()
    return trail


def test_a_snapshot_of_a_long_run_is_cheap() -> None:
    """A question about 60,000 requests takes less than 5 ms of CPU time in the event loop."""
    trail = long_trail()
    took_s = []
    for _ in range(5):
        begun_s = time.thread_time()
        assert len(trail.snapshot()) == REQUESTS
        assert trail.failed == 0
        assert trail.is_calm(59.95, LoadSpec("model"))
        took_s.append(time.thread_time() - begun_s)
    assert min(took_s) < 0.005


def test_a_snapshot_does_not_change() -> None:
    """A request that ends after a snapshot was taken is still in flight in that snapshot, and a later one is not in it."""
    requests = [request(0, Outcome.OK, 1.0), request(1)]
    trail = RequestTrail(requests)
    taken = trail.snapshot()
    requests[1].outcome, requests[1].ended_s = Outcome.ERROR, 2.0
    requests.append(request(2, Outcome.LEFT, 2.0))
    assert [one.outcome for one in taken] == [Outcome.OK, None]
    assert [one.outcome for one in trail.snapshot()] == [Outcome.OK, Outcome.ERROR, Outcome.LEFT]
    assert (trail.failed, trail.unwell) == (1, 1)


def test_clients_are_calm_in_any_order_of_ends() -> None:
    """Clients are calm if enough right answers ended in the last half second. The order in which they were sent does not matter."""
    ends_s = [9.0, 9.8, 9.6, 9.9, 9.3, 10.0]
    trail = RequestTrail([request(n, Outcome.OK, end_s) for n, end_s in enumerate(ends_s)])
    # Four answers ended since 9.5 s. Half of the requests due in half a second are enough.
    assert trail.is_calm(10.0, LoadSpec("model", rate_per_s=16.0))
    assert not trail.is_calm(10.0, LoadSpec("model", rate_per_s=18.0))


@pytest.mark.parametrize(
    ("other", "calm"),
    [
        (Request(9, STEADY, stream=False, intended_s=9.1, sent_s=9.1), True),
        (Request(9, STEADY, stream=False, intended_s=8.9, sent_s=8.9), False),
        (request(9, Outcome.SHED, 9.6), False),
        (request(9, Outcome.ERROR, 9.6), False),
        (request(9, Outcome.ERROR, 9.4), True),
    ],
    ids=["in flight", "hangs", "shed", "failed", "failed earlier"],
)
def test_one_bad_request_is_enough_for_unrest(other: Request, *, calm: bool) -> None:
    """Clients are not calm if a request of the last half second failed or was shed, or if one has been in flight for over a second."""
    trail = RequestTrail([*(request(n, Outcome.OK, 9.9) for n in range(5)), other])
    assert trail.is_calm(10.0, LoadSpec("model")) is calm


@in_loop
async def test_questions_are_answered_beside_the_loop() -> None:
    """While a question is answered in a worker thread, the event loop goes on. The switch interval is short meanwhile."""
    usual_s = sys.getswitchinterval()
    seen: list[tuple[int, float]] = []
    asked, go_on = threading.Event(), threading.Event()

    def enough(history: History) -> bool:
        del history
        seen.append((threading.get_ident(), sys.getswitchinterval()))
        asked.set()
        return go_on.wait(10)

    made = Made()
    question = asyncio.create_task(
        EarlyVerdict(enough).ask(History(made.spec, made.plan, made.events), 1)
    )
    while not asked.is_set():
        await asyncio.sleep(0.001)
    # The loop runs here although no answer is there yet.
    assert not question.done()
    go_on.set()
    assert await question
    assert seen[0][0] != threading.get_ident()
    assert seen[0][1] < usual_s
    assert sys.getswitchinterval() == usual_s


def test_the_usual_switch_interval_comes_back_with_the_last_user() -> None:
    """Several runs may ask at once: the interval is short until the last of them has its answer, also after an error."""
    usual_s = sys.getswitchinterval()
    with short_switch_interval():
        with pytest.raises(ValueError, match="x"), short_switch_interval():
            raise ValueError("x")
        assert sys.getswitchinterval() < usual_s
    assert sys.getswitchinterval() == usual_s


@in_loop
async def test_the_same_question_waits_for_something_new() -> None:
    """A question about the same facts is due again only after a while, and at once if anything new was seen."""
    made = Made()
    verdict = EarlyVerdict(lambda _: False)
    assert verdict.is_due(time.monotonic(), "a")
    begun_s = time.monotonic()
    assert not await verdict.ask(History(made.spec, made.plan), "a")
    ended_s = time.monotonic()
    assert not verdict.is_due(begun_s + ASK_AT_LEAST_EVERY_S - 1e-3, "a")
    later_s = ended_s + PAUSE_FACTOR * (ended_s - begun_s)
    assert verdict.is_due(later_s, "b")
    assert verdict.is_due(later_s + ASK_AT_LEAST_EVERY_S, "a")


@in_loop
async def test_a_slow_question_is_followed_by_a_long_pause() -> None:
    """The pause after a question is in proportion to its CPU time, so that judging has a bounded share of the time."""
    made = Made()
    burnt_s = 0.02

    def slow(_: History) -> bool:
        begun_s = time.thread_time()
        while time.thread_time() < begun_s + burnt_s:
            pass
        return False

    verdict = EarlyVerdict(slow)
    begun_s = time.monotonic()
    assert not await verdict.ask(History(made.spec, made.plan), "a")
    ended_s = time.monotonic()
    assert not verdict.is_due(begun_s + PAUSE_FACTOR * burnt_s, "b")
    assert verdict.is_due(ended_s + PAUSE_FACTOR * (ended_s - begun_s), "b")


@in_loop
async def test_a_run_ends_as_soon_as_its_history_is_enough(tmp_path: Path) -> None:
    """`enough` sees one complete snapshot at a time, one call after the other, and ends the run as soon as it is true."""
    calls: list[tuple[int, int]] = []
    under_way = threading.Lock()

    def enough(history: History) -> bool:
        assert under_way.acquire(blocking=False)
        with_outcome = sum(bool(one.outcome) for one in history.requests)
        time.sleep(0.1)
        assert with_outcome == sum(bool(one.outcome) for one in history.requests)
        calls.append((threading.get_ident(), len(history.requests)))
        under_way.release()
        return any(history.of(StepDone)) and len(calls) >= 2

    spec = fake_spec(tmp_path)
    async with FakeTargets()(spec, tmp_path) as target:
        history = await execute(target, plan_of("kill worker 0", "wait 30.00 s"), enough=enough)
    assert history.end_s < 20
    assert len(calls) == 2
    assert threading.get_ident() not in {thread for thread, _ in calls}
    assert calls[0][1] < calls[1][1] <= len(history.requests)

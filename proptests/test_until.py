"""Waits for events: their texts, the model, drawing, shrinking, and what a missed event means."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest

from graphquake.harness.clients.milestones import Milestones
from graphquake.harness.errors import InputError
from graphquake.harness.history.events import StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.request import STEADY, Request
from graphquake.harness.processes.moments import LogTail
from graphquake.harness.promises.judgement import judge
from graphquake.harness.reports.story import story
from graphquake.harness.spec.feasible import check_plan, feasible
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.load import LoadSpec
from graphquake.harness.spec.plan import (
    Plan,
    Step,
    Until,
    UntilInFlight,
    Wait,
)
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.harness.spec.steps.own.own import own_rules
from graphquake.harness.spec.steps.own.own_table import OwnStep
from graphquake.harness.spec.steps.table import rules
from graphquake.harness.spec.steps.waits.timings import timings
from graphquake.machines.plans.futile import MISSES, FutileSteps
from graphquake.machines.plans.judged import judged_share
from graphquake.machines.plans.novelty import features
from graphquake.machines.plans.subplan import embeds
from graphquake.machines.sessions.search import draw_plans
from graphquake.machines.shrinking.shrink import shrink
from graphquake.machines.shrinking.trials import Trial

from support.made import Made, healthy, plan_of
from support.simulated import SPEC, spec_with
from support.toys import in_loop

pytestmark = pytest.mark.simulated

RESTARTING = spec_with(restart="always")
LINES = (
    "wait until 8 in flight",
    "wait until a first token",
    "wait until decode 0 starts",
    'wait until decode 0 logs "model loaded"',
)


def with_load(spec: GraphSpec, **load: float) -> GraphSpec:
    """The graph under another load."""
    return replace(spec, load=replace(LoadSpec("tiny"), **load))  # type: ignore[arg-type]  # numbers only


@pytest.mark.parametrize("line", LINES)
def test_a_wait_for_an_event_survives_its_text(line: str) -> None:
    """Each is read from its text, written as the same text, and is a wait that disturbs nothing."""
    plan = plan_of(line)
    assert plan.lines() == [line]
    assert plan.steps[0].is_wait
    assert not plan.disturbs


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("wait until 8 in fligth", 'did you mean "wait until N in flight"?'),
        ("wait until first token", 'did you mean "wait until a first token"?'),
        ("wait until decode 0 start", 'did you mean "wait until ROLE INDEX starts"?'),
        ("wait until 0 in flight", "found 0, expected a number of requests from 1"),
        ('wait until decode 0 logs " "', "expected a text of a log line"),
        ('wait until decode 0 logs "a;b"', 'wait until ROLE INDEX logs "TEXT"'),
    ],
)
def test_a_wrong_text_is_explained(line: str, said: str) -> None:
    """The error names the form that was probably meant."""
    with pytest.raises(InputError) as error:
        plan_of(line)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("spec", "lines", "why"),
    [
        (SPEC, ["wait until decod 0 starts"], 'no role "decod"'),
        (SPEC, ["wait until decode 0 starts"], "nothing starts decode 0 here"),
        (SPEC, ["kill decode 0", "wait until decode 0 starts"], "nothing starts decode 0 here"),
        (SPEC, ["kill decode 0", "respawn decode 0", "wait until decode 0 starts"], ""),
        (RESTARTING, ["kill decode 0", "wait until decode 0 starts", "kill decode 0"], ""),
        (RESTARTING, ["kill decode 0", "kill decode 0"], "does not live any more"),
        (SPEC, ['wait until decode 7 logs "ready"'], "has decode 0"),
        (SPEC, ["kill decode 0", 'wait until decode 0 logs "ready"'], "does not live any more"),
        (SPEC, ["wait until 500 in flight"], ""),
        (with_load(SPEC, clients=3), ["wait until 3 in flight"], ""),
        (with_load(SPEC, clients=3), ["wait until 4 in flight"], "at most 3 in flight"),
        (with_load(SPEC, clients=3), ["burst 5 over 0 s", "wait until 8 in flight"], ""),
        (with_load(SPEC, stream=0.0), ["wait until a first token"], "load.stream is 0"),
        (
            with_load(SPEC, stream=0.0),
            ["burst 5 over 0 s, 20% leave", "wait until a first token"],
            "",
        ),
    ],
)
def test_the_model_says_which_event_can_come(spec: GraphSpec, lines: list[str], why: str) -> None:
    """A wait for an event that nothing can bring about is an error of the plan."""
    plan = plan_of(*lines)
    if not why:
        check_plan(spec, plan, "plan")
        return
    with pytest.raises(InputError) as error:
        check_plan(spec, plan, "plan")
    assert why in str(error.value)


# ------------------------------------------------------------------------------------------------------ the events


@in_loop
async def test_requests_in_flight_wake_the_step_at_once() -> None:
    """The step ends in the turn of the event loop in which the last request is sent, even if requests end right after."""
    milestones = Milestones()
    wait = asyncio.create_task(milestones.until_in_flight(3, 5.0))
    await asyncio.sleep(0)
    for _ in range(3):
        milestones.sent()
    for _ in range(3):
        milestones.ended()
    sent_s = time.monotonic()
    landed = await wait
    assert landed.ok
    assert landed.proof.startswith("3 in flight, ")
    assert landed.at_s <= sent_s
    assert milestones.in_flight == 0


@in_loop
async def test_requests_that_are_in_flight_already_count() -> None:
    """A step that finds enough requests in flight does not wait."""
    milestones = Milestones(in_flight=4)
    landed = await milestones.until_in_flight(3, 5.0)
    assert landed.proof == "4 in flight, 0 ms after the wait began"


@in_loop
async def test_too_few_requests_in_flight_are_counted() -> None:
    """A step that waits in vain says how many there were at most."""
    milestones = Milestones()
    milestones.sent()
    landed = await milestones.until_in_flight(3, 0.01)
    assert not landed.ok
    assert landed.proof == "at most 1 in flight within 0.01 s"


@in_loop
async def test_the_next_first_token_is_named() -> None:
    """The proof names the request and its time to the first token. Earlier tokens do not count."""
    milestones = Milestones()
    milestones.first_token(Request(30, STEADY, True, 0.0, 1.0, 1.5))
    wait = asyncio.create_task(milestones.until_first_token(5.0))
    await asyncio.sleep(0)
    milestones.first_token(Request(31, STEADY, True, 0.0, 2.0, 2.014))
    landed = await wait
    assert landed.proof.startswith("first token of request 31, 14 ms after it was sent, ")
    assert not (await milestones.until_first_token(0.0)).ok


def test_only_new_lines_of_a_log_are_read(tmp_path: Path) -> None:
    """What stood in the log before is skipped. A line is read as soon as a part of it is there, without colours and doubled blanks."""
    log = tmp_path / "decode-0.0.log"
    tail = LogTail.at_end(log)
    assert list(tail.new_lines()) == []
    log.write_bytes(b"old\n")
    tail = LogTail.at_end(log)
    assert list(tail.new_lines()) == []
    with log.open("ab") as file:
        file.write(b"one\n\x1b[32mmodel\x1b[0m   lo")
    assert list(tail.new_lines()) == ["one", "model lo"]
    with log.open("ab") as file:
        file.write(b"aded\n")
    assert "model loaded" in list(tail.new_lines())


# ------------------------------------------------------------------------------------------------- a missed event


def with_fault(plan: Plan, *, landed: bool) -> History:
    """The history of a run with the first step of a plan."""
    made = healthy()
    made.events.append(StepDone(1.0, 1.0, 0, plan.steps[0], landed=landed, proof="by the test"))
    return made.history()


def with_event(made: Made, line: str, *, missed: bool) -> History:
    """The history of a run with a wait for an event before its fault."""
    (step,) = plan_of(line).steps
    made.events.append(
        StepDone(1.9, 1.5, 0, step, landed=True, proof="at most 3 in flight", missed=missed)
    )
    return made.step("kill decode 0", 2.0, number=1).history()


def test_a_missed_event_makes_the_run_weak(tmp_path: Path) -> None:
    """A run is weak if an event did not come: it was not the plan that was asked for. Its folder and its story say so."""
    missed = with_event(healthy(), LINES[0], missed=True)
    assert judge(missed).weak_because == (
        '"wait until 8 in flight" waited in vain: at most 3 in flight',
    )
    assert not judge(with_event(healthy(), LINES[0], missed=False)).weak
    assert any("in vain: at most 3 in flight" in line for line in story(missed))
    missed.save(tmp_path)
    again = History.load(tmp_path)
    assert [one.missed for one in again.of(StepDone)] == [True, False]


def test_the_story_names_the_moment() -> None:
    """The story has a line for an event that came."""
    lines = story(with_event(healthy(), LINES[0], missed=False))
    assert any(line.endswith("wait until 8 in flight: at most 3 in flight") for line in lines)


def test_a_search_gives_up_an_event_that_never_came() -> None:
    """After some misses, plans that wait for it or for more are not run. An event that came once is always waited for."""
    futile = FutileSteps()
    plans = [Plan((UntilInFlight(n),)) for n in (4, 8, 16)]
    for _ in range(MISSES):
        assert not any(map(futile.any_in, plans))
        futile.add(with_event(healthy(), LINES[0], missed=True))
    assert list(map(futile.any_in, plans)) == [False, True, True]
    futile.add(with_event(healthy(), LINES[0], missed=False))
    assert list(map(futile.any_in, plans)) == [False, False, True]


def test_a_search_gives_up_a_fault_that_never_landed() -> None:
    """After some misses, plans with this fault are not run, whatever its numbers. A fault that landed once always is."""
    futile = FutileSteps()
    plans = [
        plan_of(line)
        for line in ("stall decode 0 for 2.00 s", "stall decode 0 for 9.00 s", "kill decode 0")
    ]
    for _ in range(MISSES):
        assert not any(map(futile.any_in, plans))
        futile.add(with_fault(plans[0], landed=False))
    assert list(map(futile.any_in, plans)) == [True, True, False]
    futile.add(with_fault(plans[1], landed=True))
    assert not any(map(futile.any_in, plans))


# --------------------------------------------------------------------------------------------- plans and shrinking


@dataclass
class Drawn:
    """A `Draft` after some steps."""

    model: GraphModel
    steps: list[Step]
    room: int = 5

    def may_fault(self) -> bool:
        """A fault may follow."""
        return True

    def waited_s(self) -> float:
        """No plain wait was drawn."""
        return 0.0


def timings_after(spec: GraphSpec, *lines: str) -> set[str]:
    """The waits for events that may be drawn after some steps."""
    steps = list(plan_of(*lines).steps)
    model = GraphModel(spec)
    for step in steps:
        model = step.after(model)
    return set(map(str, timings(Drawn(model, steps))))


def test_events_are_awaited_only_where_they_make_sense() -> None:
    """The number in flight follows from the load or the burst before, a first token from the streams, a start from the supervisor."""
    fast = with_load(SPEC, rate_per_s=40.0, stream=0.0)
    assert timings_after(fast) == {"wait until 4 in flight"}
    assert "wait until 20 in flight" in timings_after(fast, "burst 40 over 0.50 s")
    assert "wait until 20 in flight" not in timings_after(fast, "burst 40 over 0 s", "wait 1 s")
    assert timings_after(with_load(SPEC, clients=5, stream=0.0)) == {"wait until 5 in flight"}
    assert "wait until a first token" in timings_after(SPEC)
    assert "wait until a first token" in timings_after(fast, "burst 5 over 0 s, 20% leave")
    assert timings_after(SPEC, "kill frontend 0") == set()
    assert timings_after(RESTARTING, "kill frontend 0") == {"wait until frontend 0 starts"}
    assert "wait until decode 0 starts" not in timings_after(
        SPEC, "kill decode 0", "respawn decode 0"
    )


def test_searches_time_faults_by_events() -> None:
    """A wait for an event is drawn right before a fault."""
    found = set()
    for plan in draw_plans(RESTARTING, 1, 25):
        for one, following in pairwise(plan.steps):
            if isinstance(one, Until):
                assert following.is_fault
                found.add(type(one))
    assert UntilInFlight in found


def test_faults_of_the_users_own_are_timed_too() -> None:
    """An event may time each kind of fault, also one of the user's own, and no other step."""
    own = [OwnStep("lose", do="true"), OwnStep("reload", do="true", fault=False)]
    timed = {one.name: one.timed for _, one in own_rules({one.name: one for one in own})}
    assert timed == {"own_lose": True, "own_reload": False}
    for kind, one in rules():
        assert not one.timed or kind.is_fault


def test_an_event_is_a_feature_of_its_fault() -> None:
    """A fault that is timed by an event shows something that the fault alone does not."""
    alone, at_event = plan_of("kill decode 0"), plan_of(LINES[1], "kill decode 0")
    assert features(SPEC, at_event) - features(SPEC, alone) == {
        ("kill decode tree", "when", "wait until a first token")
    }
    assert judged_share(SPEC, at_event) >= judged_share(SPEC, alone)


def test_a_plain_wait_embeds_in_a_wait_for_an_event() -> None:
    """A wait for an event counts as itself or as its plain wait, and not as both."""
    plain, timed_ = plan_of("wait 0.10 s", "kill decode 0"), plan_of(LINES[0], "kill decode 0")
    assert embeds(plain, timed_)
    assert not embeds(timed_, plain)
    assert not embeds(plan_of("wait 0.20 s", "kill decode 0"), timed_)
    assert not embeds(plan_of("wait 0.10 s", *timed_.lines()), timed_)
    assert embeds(plan_of("wait until 4 in flight", "kill decode 0"), timed_)
    assert embeds(plan_of("kill decode 0", "wait 0.10 s"), plan_of("kill decode 0", LINES[0]))


def shrunk_with(plan: Plan, needs: type[Step] | None) -> Plan:
    """The minimal plan of a bug that needs a kill, and before it a step of a kind."""

    def run(one: Plan) -> Trial:
        assert feasible(SPEC, one)
        steps = [type(step) for step in one.steps]
        kills = [place for place, step in enumerate(one.steps) if step.is_fault]
        breaks = any(place and issubclass(steps[place - 1], needs or Step) for place in kills)
        return Trial("broken" if breaks else "kept")

    shrunk = shrink(SPEC, plan, Trial("broken"), run)
    assert embeds(shrunk.plan, plan)
    return shrunk.plan


def test_the_shrinker_tries_a_plain_wait() -> None:
    """If any wait before the kill is enough, the minimal plan has a plain wait. If the event is needed, it stays, with a lower number."""
    plan = plan_of("burst 20 over 0.10 s", LINES[0], "kill decode 0", "wait 0.50 s")
    plain = shrunk_with(plan_of(LINES[0], "kill decode 0"), Wait | Until)  # type: ignore[arg-type]  # for `issubclass`
    assert isinstance(plain.steps[0], Wait)
    event = shrunk_with(plan, UntilInFlight)
    assert event.lines() == ["wait until 1 in flight", "kill decode 0"]


def test_a_case_knows_its_kill_with_another_timing() -> None:
    """The replicas of a wait move with those of the plan."""
    (step,) = plan_of(LINES[2]).steps
    assert str(step.moved(lambda one: replace(one, index=one.index + 1))).endswith(
        "decode 1 starts"
    )

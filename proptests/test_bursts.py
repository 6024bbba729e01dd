"""Bursts whose clients leave, and bursts with prompts that the graph must refuse."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from graphquake.harness.clients.answers import Checker, Got, body_of, bytes_of
from graphquake.harness.clients.burst_schedule import Manner, burst_schedule
from graphquake.harness.errors import InputError
from graphquake.harness.history.history import History
from graphquake.harness.history.request import Group, Outcome, Request
from graphquake.harness.promises.bursts import burst_text
from graphquake.harness.promises.judgement import judge
from graphquake.harness.reports.text import failed_of
from graphquake.harness.spec.feasible import check_plan
from graphquake.harness.spec.graph import GraphSpec, load_graph
from graphquake.harness.spec.plan import Burst, Plan
from graphquake.machines.plans.futile import MISSES, FutileSteps
from graphquake.machines.plans.sweep import sweep
from graphquake.machines.sessions.search import draw_plans
from graphquake.machines.shrinking.shrink import shrink
from graphquake.machines.shrinking.trials import Trial

from support.fake_target import CONTEXT, FakeTargets, fake_spec
from support.made import healthy, plan_of, spec_of
from support.simulated import SPEC
from support.toys import in_loop
from support.undisturbed import run_live


def rejecting(spec: GraphSpec) -> GraphSpec:
    """The graph, with the length of a prompt that it must refuse."""
    return replace(spec, load=replace(spec.load, too_long_tokens=2 * CONTEXT))


@pytest.mark.simulated
def test_the_shares_of_a_burst_are_exact() -> None:
    """Each share of the clients behaves as the burst says. Shares that are rounded up never make a burst larger."""
    burst = Burst(40, 0.5, leave=0.25, leave_at_once=0.1, refused=0.5)
    found = Counter(manner.kind for _, manner in burst_schedule(burst, random.Random(1)))
    assert found == {"leaves": 10, "leaves at once": 4, "asks too much": 20, "stays": 6}
    odd = Burst(8, 0.5, leave=0.25, leave_later=0.25, at_token=5, malformed=0.25)
    kinds = Counter(manner for _, manner in burst_schedule(odd, random.Random(1)))
    assert kinds == {
        Manner("leaves"): 2, Manner("leaves", 5): 2, Manner("malformed"): 2, Manner("stays"): 2,
    }  # fmt: skip
    small = burst_schedule(Burst(3, 0.0, 0.5, 0.5), random.Random(1))
    assert len(list(small)) == 3


@pytest.mark.simulated
def test_too_long_prompts_need_the_key() -> None:
    """A plan with such prompts is an error if the graph file does not say how long they are. Nor are they drawn then."""
    plan = plan_of("burst 5 over 0.00 s, 25% leave at once, 50% refused")
    assert plan.lines() == ["burst 5 over 0.00 s, 25% leave at once, 50% refused"]
    with pytest.raises(InputError, match=r"load\.too_long_tokens is missing"):
        check_plan(SPEC, plan, "plan")
    check_plan(rejecting(SPEC), plan, "plan")
    for spec, may in ((SPEC, False), (rejecting(SPEC), True)):
        drawn = [step for plan in draw_plans(spec, 1, 25) for step in plan.steps]
        assert any(isinstance(one, Burst) and one.refused for one in drawn) == may


@pytest.mark.simulated
def test_a_too_long_prompt_must_be_longer_than_others() -> None:
    """The graph file is refused if its own load would be too long."""
    load = {"model": "tiny", "prompt_tokens": 64, "too_long_tokens": 64}
    with pytest.raises(InputError, match="found 64, expected more than prompt_tokens"):
        spec_of(load=load)


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("got", "outcome"),
    [
        (Got(Outcome.OK), Outcome.WRONG),
        (Got(Outcome.WRONG, "wrong tokens"), Outcome.WRONG),
        (Got(Outcome.ERROR, "error event 400"), Outcome.REJECTED),
        (Got(Outcome.ERROR, "error event 500"), Outcome.ERROR),
        (Got(Outcome.TRUNCATED, "no [DONE]"), Outcome.TRUNCATED),
    ],
)
def test_the_answer_to_a_too_long_prompt(got: Got, outcome: Outcome) -> None:
    """An answer is wrong, and an error within a stream refuses the prompt if it names a status 4xx."""
    request = Request(1, Group("burst", 0), stream=True, intended_s=0.0, manner="asks too much")
    assert Checker(rejecting(SPEC)).check_refused(request, got).outcome == outcome


@pytest.mark.simulated
def test_refused_prompts_are_not_failures(tmp_path: Path) -> None:
    """A prompt that was refused breaks no promise, also with a fault before it, and counts nowhere as failed. Its mark is kept on disk."""
    made = (
        healthy().step("kill decode 0", 2.0).ask(9.0, outcome=Outcome.REJECTED, detail="HTTP 400")
    )
    made.requests[-1].manner = "asks too much"
    history = made.history()
    verdict = judge(history)
    assert (verdict.kind, verdict.excused) == ("kept", 0)
    assert failed_of(history)[1] == []
    assert all(request.outcome != Outcome.REJECTED for request in failed_of(history)[0])
    history.save(tmp_path)
    assert [one.must_be_refused for one in History.load(tmp_path).requests][-2:] == [False, True]


@pytest.mark.simulated
def test_a_too_long_prompt_has_its_length() -> None:
    """The prompt follows from the number of its request, as others do."""
    load = rejecting(SPEC).load
    body = body_of(load, 3, stream=False, too_long=True)
    assert len(body["prompt"]) == 2 * CONTEXT
    assert body["prompt"] != body_of(load, 4, stream=False, too_long=True)["prompt"]
    assert len(body_of(load, 3, stream=False)["prompt"]) == load.prompt_tokens


@pytest.mark.simulated
def test_the_shrinker_lowers_each_share() -> None:
    """Shares that the failure does not need become 0."""
    start = Plan((Burst(20, 0.5, leave=0.25, leave_at_once=0.25, refused=0.5),))

    def run(plan: Plan) -> Trial:
        breaks = any(isinstance(one, Burst) and one.leave_at_once >= 0.1 for one in plan.steps)
        return Trial("broken" if breaks else "kept")

    (step,) = shrink(rejecting(SPEC), start, Trial("broken"), run).plan.steps
    assert isinstance(step, Burst)
    assert (step.leave, step.refused, step.over_s) == (0.0, 0.0, 0.0)
    assert 0.1 <= step.leave_at_once <= 0.15


@in_loop
@pytest.mark.parametrize(
    ("status", "outcome", "broken"),
    [
        (400, Outcome.REJECTED, ""),
        (0, Outcome.WRONG, "answers"),
        (500, Outcome.ERROR, "error_window"),
    ],
)
async def test_prompts_that_the_graph_must_refuse(
    tmp_path: Path, status: int, outcome: Outcome, broken: str
) -> None:
    """A status 4xx is right. An answer breaks `answers`, and another error is judged as any failure. Clients that leave do not fail."""
    plan = plan_of("burst 20 over 0.10 s, 25% leave at once, 50% refused")
    targets = FakeTargets(too_long_status=status)
    run = await run_live(rejecting(fake_spec(tmp_path)), plan, tmp_path / "run", opener=targets)
    burst = [one for one in run.history.requests if not one.steady]
    assert [one.outcome for one in burst if one.must_be_refused] == [outcome] * 10
    left = [one for one in burst if one.outcome == Outcome.LEFT]
    assert [one.detail for one in left] == ["left before the first token"] * 5
    assert all(one.first_s != one.first_s for one in left)
    assert sum(one.outcome == Outcome.OK for one in burst) == 5
    assert {one.promise for one in run.verdict.violations} == ({broken} if broken else set())


@pytest.mark.simulated
def test_a_burst_whose_clients_leave_later_is_read_and_shrunk() -> None:
    """The token is part of the text. It is lowered as the other numbers are, and falls away with the share."""
    (step,) = plan_of("burst 9 over 0.10 s, 20% leave at token 12, 40% malformed").steps
    assert step == Burst(9, 0.1, leave_later=0.2, at_token=12, malformed=0.4)
    assert isinstance(step, Burst)
    assert step.turned("leave_later", 0.0) == Burst(9, 0.1, malformed=0.4)
    assert all(step.covers(step.turned(one.name, one.least)) for one in step.knobs())
    for line in (
        "burst 5 over 0.00 s, 50% leave at token 0",
        "burst 5 over 0.00 s, 60% leave, 60% malformed",
    ):
        with pytest.raises(InputError, match="expected"):
            plan_of(line)
    with pytest.raises(
        InputError, match=r"no client can leave at token 33: load\.max_tokens is 32"
    ):
        check_plan(spec_of(), plan_of("burst 5 over 0.00 s, 50% leave at token 33"), "plan")


@pytest.mark.simulated
def test_malformed_requests_are_drawn_only_if_the_graph_refuses_them() -> None:
    """Not every correct server refuses them, so the graph file has to say so. Clients that leave at a token are drawn for every graph."""
    strict = replace(SPEC, load=replace(SPEC.load, malformed=True))
    for spec, may in ((SPEC, False), (strict, True)):
        bursts = [
            step for plan in sweep(spec).seldom for step in plan.steps if isinstance(step, Burst)
        ]
        assert any(one.malformed for one in bursts) == may
        assert any(one.leave_later for one in bursts)
    drawn = [step for plan in draw_plans(strict, 1, 60) for step in plan.steps]
    assert any(isinstance(one, Burst) and one.malformed + one.leave_later for one in drawn)


@pytest.mark.simulated
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_malformed_requests_are_of_four_kinds(api: str) -> None:
    """By turns: JSON that is cut off, a wrong type of a number, a wrong type of the prompt, and no prompt."""
    load = spec_of(load={"model": "tiny", "api": api}).load
    requests = [
        Request(number, Group("burst", 0), stream=False, intended_s=0.0, manner="malformed")
        for number in range(4)
    ]
    cut, *others = (bytes_of(load, one) for one in requests)
    with pytest.raises(ValueError, match=r"Unterminated|delimiter"):
        json.loads(cut)
    number, prompt, missing = map(json.loads, others)
    key = "messages" if api == "chat" else "prompt"
    assert number["max_tokens"] == "many"
    assert prompt[key] == {"text": 1}
    assert key not in missing


@in_loop
async def test_a_burst_of_which_no_client_can_leave_is_invalid(tmp_path: Path) -> None:
    """The fake graph answers in one piece. So no client can leave at token 3, and a search does not draw that again and again."""
    plan = plan_of("burst 8 over 0.05 s, 50% leave at token 3")
    run = await run_live(fake_spec(tmp_path), plan, tmp_path / "run", opener=FakeTargets())
    (cause,) = run.verdict.causes
    assert cause == f'"{plan.steps[0]}" did not land: each of its 4 answers ended before token 3'
    futile = FutileSteps()
    for _ in range(MISSES):
        assert not futile.any_in(plan)
        futile.add(run.history)
    assert futile.any_in(plan)
    assert not futile.any_in(plan_of("burst 8 over 0.05 s"))


@in_loop
async def test_clients_leave_at_a_token_and_malformed_requests_are_refused(tmp_path: Path) -> None:
    """The reference graph serves the others well. Each client has left after its token, and each malformed request got a status 4xx."""
    plan = plan_of("burst 16 over 0.20 s, 50% leave at token 4, 50% malformed")
    run = await run_live(load_graph("reference"), plan, tmp_path / "run")
    assert run.verdict.kind == "kept"
    burst = [one for one in run.history.requests if not one.steady]
    left = [one for one in burst if one.outcome == Outcome.LEFT]
    assert len(left) == 8
    assert all(4 <= one.tokens < 16 for one in left)
    assert {one.detail for one in burst if one.must_be_refused} == {"HTTP 400"}
    assert burst_text(run.history, 0) == "16 requests: 8 HTTP 400, 8 left after token 4"

"""Faults of processes beyond kills: stalls of one process, interrupts, bounces, crash loops and rolls. Each has its proof."""

from __future__ import annotations

import signal
from pathlib import Path
from unittest import mock

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import BecameReady, Died, Spawned, StepDone
from graphquake.harness.history.history import History
from graphquake.harness.processes.guard import children_of, stat_of
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.promises.availability import Stretch, availability, up_stretches
from graphquake.harness.spec.feasible import check_plan
from graphquake.harness.spec.plan import parse_plan, parse_step
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Scene
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.harness.spec.steps.processes import bounce as bounce_module
from graphquake.harness.spec.steps.processes.stall_part import StallPart
from graphquake.harness.spec.steps.scope import PROCESS, Child
from graphquake.machines.findings.fault_coverage import FaultCoverage
from graphquake.machines.plans.sweep import sweep

from support.made import Made, spec_of
from support.toys import TOY, in_loop, toy_spec
from support.undisturbed import run_live
from support.until import until

ENGINES = spec_of(
    roles={
        "frontend": {"command": "frontend", "entry": "http://127.0.0.1:{port.http}"},
        "prefill": {"command": "prefill"},
        "decode": {"command": "decode", "replicas": 2, "children": {"engine": "gq-engine"}},
    }
)
ONE = Replica("worker", 0)


# ------------------------------------------------------------------------------------------------ stalls of a part


@pytest.mark.simulated
@pytest.mark.parametrize(
    "line",
    ["stall decode 0 process for 4.00 s", "stall decode 1 engine for 0.50 s", "stall decode 1 engine 2 for 0.50 s"],
)  # fmt: skip
def test_the_text_of_a_stalled_part_survives(line: str) -> None:
    """The scopes are those of a kill."""
    step = parse_step(line)
    assert isinstance(step, StallPart)
    assert str(step) == line
    assert str(parse_step("stall decode 0 tree for 1 s")) == "stall decode 0 for 1.00 s"


@pytest.mark.simulated
def test_a_stalled_part_is_checked_by_the_model() -> None:
    """The child must have a name in the graph file. A replica with a stalled part does not work for the model."""
    for line, error in (
        ("stall decode 0 engin for 1 s", 'decode has no child "engin"; did you mean "engine"'),
        ("stall prefill 0 process for 1 s", 'so use "stall prefill 0 for 1.00 s"'),
    ):
        with pytest.raises(InputError, match=error):
            check_plan(ENGINES, parse_plan("p", [line]), "p")
    after = parse_step("stall decode 0 engine for 2 s").after(GraphModel(ENGINES))
    assert not after.works(Replica("decode", 0))
    assert after.serves()
    assert after.later(2.0).works(Replica("decode", 0))


@pytest.mark.simulated
def test_parts_are_swept_where_children_have_names() -> None:
    """The second sweep freezes the main process and the child, each for longer than a lease."""
    found = [step for plan in sweep(ENGINES).seldom for step in plan.steps]
    parts = [one for one in found if isinstance(one, StallPart) and one.index == 0]
    assert {one.role for one in parts} == {"decode"}
    assert {one.scope for one in parts} == {PROCESS, Child("engine")}
    assert {one.for_s for one in parts} == {ENGINES.lease_s + 1.0}


@pytest.mark.simulated
def test_a_replica_with_a_frozen_part_is_not_up() -> None:
    """A frozen child excuses what a stall of the whole replica excuses: without another replica, there is no path."""
    made = Made(spec_of(roles={**ENGINES.document["roles"]}))
    made.step("stall prefill 0 process for 2 s", 2.0)
    made.ask(9.0)
    whole = Made(made.spec).step("stall prefill 0 for 2 s", 2.0).ask(9.0)
    assert availability(made.history()) == availability(whole.history())


@in_loop
async def test_one_process_stalls_and_the_others_run_on(tmp_path: Path) -> None:
    """Exactly the named process is in state T. A child of another name, and a process that is not there, make the fault miss."""
    spec = toy_spec(
        tmp_path, worker="--children 2", children='{ engine = "toy-engine", gone = "no-such" }'
    )
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        main = next(
            event.pid for event in target.log if event.replica == ONE and hasattr(event, "pid")
        )
        children = children_of(main)
        # Until then, a child does not have its name.
        log = tmp_path / "run/logs/worker-0.0.log"
        await until(lambda: log.read_text().count("is up") == 2)

        def stopped() -> set[int]:
            return {
                pid for pid in (main, *children) if (stat := stat_of(pid)) and stat.state == "T"
            }

        landed = await target.stall(ONE, Child("engine", 1))
        assert landed.ok, landed.proof
        assert stopped() == {children[1]}
        assert f"pid {children[1]} (toy-engine): 1 process stopped (state T)" in landed.proof
        assert landed.proof.endswith("2 other processes of worker 0 run")
        assert not target.ready(ONE)
        assert await target.views() == []
        assert (await target.resume(ONE)).ok
        assert stopped() == set()
        assert target.ready(ONE)
        assert await target.views()
        assert (await target.stall(ONE, PROCESS)).ok
        assert stopped() == {main}
        assert (await target.resume(ONE)).ok
        missed = await target.stall(ONE, Child("gone"))
        assert not missed.ok
        assert "worker 0 has 0 child processes called no-such" in missed.proof
        assert not (await target.stall(ONE, Child("engine", 2))).ok
        assert stopped() == set()
        assert target.ready(ONE)
        # An interrupt ends it.
        landed = await target.interrupt(ONE)
        assert landed.proof == f"SIGINT sent to pid {main}"
        assert target.ending(ONE) or not target.alive(ONE)
        assert await target.gone(ONE, 30.0)
        assert not (await target.interrupt(ONE)).ok
        (death,) = (event for event in target.log if isinstance(event, Died))
        assert death.aimed
        assert death.status in (-signal.SIGINT, 0, 1, 130)


# ------------------------------------------------------------------------------------------------------- interrupts


@pytest.mark.simulated
def test_an_interrupt_is_modelled_as_a_termination() -> None:
    """The replica shuts down, and a respawn brings it back."""
    check_plan(ENGINES, parse_plan("p", ["interrupt decode 0", "respawn decode 0"]), "p")
    after = parse_step("interrupt decode 0").after(GraphModel(ENGINES))
    assert after == parse_step("terminate decode 0").after(GraphModel(ENGINES))
    with pytest.raises(InputError, match="decode 0 does not live any more"):
        check_plan(ENGINES, parse_plan("p", ["kill decode 0", "interrupt decode 0"]), "p")


# ------------------------------------------------------------------------------------------ bounces, crash loops, rolls


@pytest.mark.simulated
@pytest.mark.parametrize(
    "line",
    [
        "bounce decode 0 after 10 ms",
        "crash decode 0 3 times",
        "crash decode 0 2 times, 100 ms after each start",
        "roll decode",
        "roll decode as new",
    ],
)
def test_the_text_of_a_restart_survives(line: str) -> None:
    """A plan with such a step is read from its text and written as the same text."""
    assert str(parse_step(line)) == line


@pytest.mark.simulated
def test_restarts_leave_the_replica_alive() -> None:
    """For the model, a bounce, a crash loop and a roll end with replicas that start. Whoever is dead can't be bounced."""
    for line in ("bounce decode 0 after 10 ms", "crash decode 0 3 times", "roll decode"):
        for restart in ("never", "always"):
            spec = spec_of(restart=restart, restart_delay_s=5)
            after = parse_step(line).after(GraphModel(spec))
            assert after.lives(Replica("decode", 0))
            assert Replica("decode", 0) in after.starting
            check_plan(spec, parse_plan("p", [line, line]), "p")
            for fault in ("kill decode 0", "stall decode 0 for 5 s"):
                with pytest.raises(
                    InputError, match=r"decode 0 (does not live any more|is stalled)"
                ):
                    check_plan(spec, parse_plan("p", [fault, line]), "p")


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("bounce decode 0 after 900 ms", "restarts a dead replica by itself after 0.5 s"),
        ("roll decod", 'has no role "decod"; did you mean "decode"'),
        ("roll decode as newer", 'decode has no variant "newer"; did you mean "new"'),
        ("crash decode 0 1 times", "found 1, expected deaths from 2 to 100"),
    ],
)
def test_a_wrong_restart_is_one_clear_error(line: str, error: str) -> None:
    """The error says what the graph file has."""
    decode = {"command": "decode", "replicas": 2, "variants": {"new": {"command": "decode --v2"}}}
    roles = {**spec_of().document["roles"], "decode": decode}
    spec = spec_of(restart="always", restart_delay_s=0.5, roles=roles)
    check_plan(spec, parse_plan("p", ["bounce decode 0 after 400 ms", "roll decode as new"]), "p")
    with pytest.raises(InputError, match=error):
        check_plan(spec, parse_plan("p", [line]), "p")


@pytest.mark.simulated
def test_a_roll_is_shrunk_to_one_without_a_variant() -> None:
    """The plain roll does less. A roll of another role or variant is another step."""
    new = parse_step("roll decode as new")
    assert list(map(str, new.simpler(spec_of()))) == ["roll decode"]
    assert new.covers(parse_step("roll decode"))
    assert not parse_step("roll decode").covers(new)
    assert not new.covers(parse_step("roll prefill"))


@pytest.mark.simulated
def test_a_roll_excuses_failures_around_each_termination_only(tmp_path: Path) -> None:
    """The time between two terminations of a long roll is judged. The run folder keeps the time of each termination."""
    told = ((2.0, Replica("decode", 0)), (7.0, Replica("decode", 1)))
    made = Made(plan=parse_plan("p", ["roll decode"]))
    made.events.append(
        StepDone(7.0, 2.0, 0, parse_step("roll decode"), landed=True, proof="", told=told)
    )
    made.dies("decode 0", 3.0, aimed=True).spawn("decode 0", 3.1, ready_s=4.0)
    made.dies("decode 1", 8.0, aimed=True).spawn("decode 1", 8.1, ready_s=9.0)
    history = made.ask(12.0).history()
    (tmp_path / "run").mkdir()
    history.save(tmp_path / "run")
    read = History.load(tmp_path / "run")
    for one in (history, read):
        assert one.disturbed() == [(2.0, 2.0), (7.0, 7.0)]
        window_s = one.spec.promises.window_s
        assert availability(one).disturbances == (
            Stretch(2.0, 2.0 + window_s),
            Stretch(7.0, 7.0 + window_s),
        )
        assert up_stretches(one)[Replica("decode", 0)][0].end_s == 2.0
        assert up_stretches(one)[Replica("decode", 1)][0].end_s == 7.0
    coverage = FaultCoverage(made.spec)
    coverage.add(read)
    assert "roll decode" in coverage.tried()
    assert "roll decode" not in coverage.not_tried()


@in_loop
async def test_replicas_bounce_crash_and_roll(tmp_path: Path) -> None:
    """Each step proves its deaths and starts by pids: those of the history. A roll as a variant runs the other command."""
    more = '''[roles.worker.variants.new]
command = "{python} TOY work --port {port.http} --children 1"'''
    spec = toy_spec(tmp_path, worker="", more=more.replace("TOY", str(TOY)))
    plan = parse_plan(
        "p",
        [
            "bounce worker 0 after 20 ms",
            "wait until ready",
            "crash worker 1 3 times",
            "wait until ready",
            "roll worker as new",
        ],
    )
    run = await run_live(spec, plan, tmp_path / "run")
    assert run.verdict.kind == "kept", run.verdict
    bounce, _, crash, _, roll = run.history.of(StepDone)
    spawned = {(str(one.replica), one.incarnation): one.pid for one in run.history.of(Spawned)}
    assert f"pid {spawned['worker 0', 0]} gone" in bounce.proof
    assert f"ms: pid {spawned['worker 0', 1]}" in bounce.proof
    gap_s = bounce.at_s - next(one.at_s for one in run.history.of(Died))
    assert 0.02 <= gap_s < 0.5
    assert crash.proof.startswith("3 deaths: ")
    assert all(f"pid {spawned['worker 1', n]} gone" in crash.proof for n in (0, 1, 2))
    assert f"then started: pid {spawned['worker 1', 3]}" in crash.proof
    ready = {(str(one.replica), one.incarnation) for one in run.history.of(BecameReady)}
    assert not {("worker 1", 1), ("worker 1", 2)} & ready
    assert [str(one) for _, one in roll.told] == ["worker 0", "worker 1"]
    assert f"SIGTERM sent to pid {spawned['worker 0', 1]}" in roll.proof
    assert f"started as new: pid {spawned['worker 1', 4]}" in roll.proof
    assert all(one.aimed for one in run.history.of(Died))


@in_loop
async def test_a_restart_that_misses_does_not_land(tmp_path: Path) -> None:
    """A variant whose program does not exist can't be started. Neither a dead replica nor one that a gap kept too long is bounced."""
    more = '[roles.worker.variants.gone]\ncommand = "no-such-program"'
    spec = toy_spec(tmp_path, more=more)
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        scene = Scene(0, target, None)  # type: ignore[arg-type]  # these steps send no requests
        missed = await parse_step("roll worker as gone").run(scene)
        assert not missed.ok
        assert "no-such-program" in missed.proof
        assert target.varied() == [ONE]
        for line in ("bounce worker 0 after 1 ms", "crash worker 0 2 times"):
            missed = await parse_step(line).run(scene)
            assert not missed.ok
            assert "worker 0 was dead already" in missed.proof
        bounce = parse_step("bounce worker 1 after 1 ms")
        with mock.patch.object(bounce_module, "LATE_MAX_S", -1.0):
            missed = await bounce.run(scene)
        assert not missed.ok
        assert missed.proof.endswith("1 ms were asked for")

"""Steps of the user's own, from the graph file to the case: read, drawn, proved, undone, judged and shrunk."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import Resumed, StepDone, Undone
from graphquake.harness.history.history import History
from graphquake.harness.processes.guard import pids
from graphquake.harness.spec.feasible import check_plan
from graphquake.harness.spec.graph import GraphSpec, load_graph
from graphquake.harness.spec.plan import Plan, parse_plan, plan_from_json
from graphquake.harness.spec.steps.own.own import Own, OwnFault
from graphquake.harness.spec.steps.own.own_table import read_own_steps
from graphquake.harness.spec.table import Table
from graphquake.machines.findings.fault_coverage import drawable
from graphquake.machines.frontends.commands.try_command import steps_texts
from graphquake.machines.plans.subplan import embeds
from graphquake.machines.sessions.search import draw_plans
from graphquake.machines.shrinking.shrink import shrink
from graphquake.machines.shrinking.trials import Trial

from support.fake_target import GRAPH, FakeTargets
from support.made import spec_of
from support.toys import in_loop, left_of, toy_file
from support.undisturbed import run_live

STEPS: dict[str, dict[str, Any]] = {
    "reload": {"signal": "SIGUSR2", "role": "frontend", "fault": False},
    "squeeze": {"do": "sq {pid}", "proof": "look", "undo": "un", "role": "decode", "for_s": 6},
    "flood": {"do": "flood {run_dir}", "undo": "dry"},
    "note": {"do": "true", "fault": False},
}
SPEC = spec_of(steps=STEPS)


def plan_of(*lines: str, spec: GraphSpec = SPEC) -> Plan:
    """Return the plan of some lines of text."""
    return parse_plan("made", lines, spec.own_steps)


# --------------------------------------------------------------------------------------------------- reading


@pytest.mark.simulated
def test_the_text_of_a_step_survives() -> None:
    """A step without a time takes that of the file. Heal undoes a step that has none."""
    lines = [
        "reload frontend 0",
        "squeeze decode 1 for 2.50 s",
        "flood",
        "flood for 1.00 s",
        "note",
    ]
    assert plan_of(*lines).lines() == lines
    assert plan_of("squeeze decode 1").lines() == ["squeeze decode 1 for 6.00 s"]
    reload, flood = plan_of("reload frontend 0", "flood").steps
    assert (type(reload), reload.is_fault, reload.lasts_s) == (Own, False, 0.0)
    assert (type(flood), flood.is_fault, flood.lasts_s) == (OwnFault, True, math.inf)
    plan = plan_of(*lines)
    assert pickle.loads(pickle.dumps(plan)) == plan  # noqa: S301 - our own bytes


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("squeeze", r"is not of the form: squeeze decode INDEX\[ for T s\]"),
        ("reload frontend 0 for 2 s", "is not of the form: reload frontend INDEX"),
        ("flood decode 0", "is not of the form: flood"),
        ("squeez decode 0", 'did you mean "squeeze"'),
    ],
)
def test_a_wrong_text_names_the_right_form(line: str, error: str) -> None:
    """The form is that of the definition."""
    with pytest.raises(InputError, match=error):
        plan_of(line)


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("name", "table", "error"),
    [
        ("kill", {"do": "x"}, 'steps.kill: "kill" is a word of the plan language'),
        ("stay", {"do": "x"}, "is a word of the plan language"),
        ("a", {}, "needs either a signal or a command do"),
        ("a", {"do": "x", "signal": "SIGHUP", "role": "decode"}, "needs either a signal or"),
        ("a", {"signal": "SIGHUP"}, "role: is missing: a signal goes to"),
        ("a", {"signal": "SIGKILL", "role": "decode"}, "which is the built-in step kill"),
        ("a", {"signal": "SIGUSR", "role": "decode"}, 'did you mean "SIGUSR'),
        ("a", {"signal": "SIGHUP", "role": "decode", "undo": "x"}, "undo: is for commands"),
        ("a", {"do": "x", "for_s": 2}, "for_s: needs a command undo"),
        ("a", {"do": "x", "role": "decod"}, 'did you mean "decode"'),
        ("a", {"do": "x {port.http}"}, "which is about one replica: the step needs a role"),
        ("a", {"do": "x {pid}"}, "which is about one replica: the step needs a role"),
        ("a", {"do": "x '"}, "do: is not a command: No closing quotation"),
        ("a", {"do": "x", "within": 2}, 'within: is not a known key; did you mean "within_s"'),
    ],
)
def test_a_wrong_definition_is_one_clear_error(
    name: str, table: dict[str, Any], error: str
) -> None:
    """The error names the step, the key, what was found and what would be right."""
    with pytest.raises(InputError) as raised:
        spec_of(steps={name: table})
    assert f"made.toml: steps.{name}" in str(raised.value)
    assert error in str(raised.value)


@pytest.mark.simulated
def test_a_case_is_read_without_the_graph_file() -> None:
    """The definitions that a case keeps are enough to read its plan."""
    kept = {name: one.to_table() for name, one in SPEC.own_steps.items()}
    assert kept == STEPS
    tables = Table("case", {"own_steps": kept}).name_tables("own_steps")
    plan = plan_of("reload frontend 0", "squeeze decode 1", "flood")
    table = Table("case", {"steps": plan.lines()})
    assert plan_from_json(table, read_own_steps(tables, ("kill",), None)) == plan


@pytest.mark.simulated
def test_the_model_knows_what_is_possible() -> None:
    """The file must define the step, with this role. A step does not begin again while it acts on the graph."""
    with pytest.raises(InputError, match='made has no step "flood"'):
        check_plan(spec_of(), plan_of("flood"), "case")
    with pytest.raises(InputError, match="squeeze aims at a replica of decode"):
        check_plan(SPEC, plan_of("squeeze prefill 0"), "plan")
    with pytest.raises(InputError, match="it still acts on the graph"):
        check_plan(SPEC, plan_of("squeeze decode 0", "wait 1 s", "squeeze decode 0"), "plan")
    check_plan(
        SPEC,
        plan_of("squeeze decode 0", "squeeze decode 1", "wait 6 s", "squeeze decode 0"),
        "plan",
    )
    with pytest.raises(InputError, match="does not live any more"):
        check_plan(SPEC, plan_of("kill frontend 0", "reload frontend 0"), "plan")


# --------------------------------------------------------------------------------------------------- drawing


def verbs_drawn(spec: GraphSpec) -> set[str]:
    """The first words of the steps that searches with several seeds draw first. One search alone may draw a step late."""
    plans = (plan for seed in range(1, 6) for plan in draw_plans(spec, seed, 16))
    return {str(step).split()[0] for plan in plans for step in plan.steps}


@pytest.mark.simulated
def test_own_steps_are_drawn_and_listed() -> None:
    """Every own step is drawn. `faults` may leave out one that is a fault, and never one that is not."""
    drawn = verbs_drawn(SPEC)
    assert set(STEPS) <= drawn
    assert "squeeze decode" in drawable(SPEC)
    assert "flood" in drawable(SPEC)
    few = spec_of(steps=STEPS, faults=["kill"])
    drawn = verbs_drawn(few)
    assert {"reload", "note", "kill"} <= drawn
    assert drawn.isdisjoint({"squeeze", "flood"})
    assert [text for text in steps_texts(few) if "own" in text or "fault)" in text] == [
        "reload frontend INDEX: SIGUSR2 (not a fault)",
        "squeeze decode INDEX[ for T s]: sq {pid} (a fault); not drawn: the list faults leaves it out",
        "flood[ for T s]: flood {run_dir} (a fault); not drawn: the list faults leaves it out",
        "note: true (not a fault)",
    ]


@pytest.mark.simulated
def test_an_own_step_is_shrunk() -> None:
    """The shrinker leaves out the other steps, and lowers the time. A control run has none of the user's own steps."""
    plan = plan_of("reload frontend 0", "kill prefill 0", "squeeze decode 1", "wait 1.00 s")

    def run(one: Plan) -> Trial:
        own = [step for step in one.steps if isinstance(step, OwnFault)]
        return Trial("broken" if any(step.for_s >= 0.4 for step in own) else "kept")

    shrunk = shrink(SPEC, plan, Trial("broken"), run)
    (step,) = shrunk.plan.steps
    assert isinstance(step, OwnFault)
    assert 0.4 <= step.for_s <= 0.5
    assert embeds(shrunk.plan, plan)
    assert plan.without_faults().lines() == ["wait 1.00 s"]


# -------------------------------------------------------------------------------------------- carrying it out

FAKE = """
[steps]
reload = { signal = "SIGUSR2", role = "front", fault = false }
flood = { do = "true", proof = "true", undo = "true", for_s = 0.1, fault = false }
dud = { do = "true", proof = "false", undo = "true" }
"""


def fake(folder: Path) -> GraphSpec:
    """The graph file of the fake target, with steps of its own."""
    path = folder / "fake.toml"
    path.write_text(GRAPH + FAKE)
    return load_graph(str(path))


@in_loop
async def test_own_steps_are_carried_out_and_undone(tmp_path: Path) -> None:
    """A step that is not a fault excuses nothing, and neither does its end. The history is read again."""
    spec, targets = fake(tmp_path), FakeTargets()
    plan = plan_of("reload front 0", "flood", spec=spec)
    run = await run_live(spec, plan, tmp_path / "run", opener=targets)
    assert run.verdict.kind == "kept"
    assert targets.opened[0].calls == [
        "SIGUSR2 front 0",
        "do of step 2 flood at None",
        "proof of step 2 flood at None",
        "undo of step 2 flood at None",
        "end of step 2 flood",
    ]
    history = History.load(tmp_path / "run")
    assert [one.step for one in history.of(StepDone)] == list(plan.steps)
    assert [one.number for one in history.of(Undone)] == [1]
    assert not list(history.of(Resumed))
    assert not history.disturbed()


@in_loop
async def test_a_step_without_proof_did_not_land(tmp_path: Path) -> None:
    """The run is invalid, and the step is undone at once."""
    spec, targets = fake(tmp_path), FakeTargets()
    plan = plan_of("dud", "kill worker 0", spec=spec)
    run = await run_live(spec, plan, tmp_path / "run", opener=targets)
    assert run.verdict.kind == "invalid"
    assert targets.opened[0].calls[-2:] == ["undo of step 1 dud at None", "end of step 1 dud"]


@in_loop
async def test_a_run_that_ends_early_undoes_its_steps(tmp_path: Path) -> None:
    """Ctrl-C cancels a run. The command `undo` runs all the same."""
    spec, targets = fake(tmp_path), FakeTargets()
    plan = plan_of("flood for 60.00 s", spec=spec)
    task = asyncio.create_task(run_live(spec, plan, tmp_path / "run", opener=targets))
    async with asyncio.timeout(20):
        while not (targets.opened and "proof of step 1 flood at None" in targets.opened[0].calls):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert targets.opened[0].calls[-3:-1] == ["undo of step 1 flood at None", "end of step 1 flood"]


TOY = """
[steps]
hog = { do = "sh -c 'sleep 300 & echo $0 {port.http} {pid}' hi", undo = "true", role = "worker", for_s = 0.3 }
slow = { do = "sh -c 'sleep 300 & sleep 300'", within_s = 0.3 }
winch = { signal = "SIGWINCH", role = "front", fault = false }
"""


@in_loop
async def test_commands_and_signals_on_live_processes(tmp_path: Path) -> None:
    """The output of a command is its proof. A command that takes too long is killed with all its processes, and did not land."""
    spec = load_graph(str(toy_file(tmp_path, more=TOY, faults='["kill"]')))
    plan = plan_of("winch front 0", "hog worker 1", "slow", spec=spec)
    run = await run_live(spec, plan, tmp_path / "run")
    winch, hog, slow = run.history.of(StepDone)
    assert winch.proof.startswith("SIGWINCH sent to pid ")
    assert hog.proof.startswith("do: exit status 0: hi ")
    assert all(word.isdigit() for word in hog.proof.split(",")[0].split()[-2:])
    assert slow.proof.startswith("do did not end within 0.3 s, and was killed")
    assert not slow.landed
    assert run.verdict.kind == "invalid"
    assert [one.step for one in run.history.of(Undone)] == [hog.step]
    assert not left_of(os.getpid())


HARNESS = """
import asyncio, os, signal, sys
from pathlib import Path
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.spec.replica import Replica

async def main():
    async with Supervisor.launch(load_graph(sys.argv[1]), Path(sys.argv[2])) as target:
        for number, part in ((1, "do"), (2, "do"), (2, "undo"), (3, "do")):
            landed = await target.own.command(f"step {number} flood{number}", part, None)
            assert landed.ok, landed
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_own_steps_are_undone_if_the_harness_is_killed(tmp_path: Path) -> None:
    """The guard runs the command `undo` of a step that has begun, for a limited time, and not that of a step that is over."""
    flood = "do = \"mkdir -p '{folder}/water{number}'\", undo = \"sh -c '{undo}'\""
    undos = {1: f"rmdir {tmp_path}/water1", 2: f"echo again >> {tmp_path}/told", 3: "sleep 60"}
    steps = "\n".join(
        f"flood{number} = {{ {flood.format(folder=tmp_path, number=number, undo=undo)}, within_s = 1 }}"
        for number, undo in undos.items()
    )
    path = toy_file(tmp_path, more=f"[steps]\n{steps}")
    argv = [sys.executable, "-c", HARNESS, str(path), str(tmp_path / "run")]
    harness = subprocess.run(argv, check=False)
    assert harness.returncode == -signal.SIGKILL
    until_s = time.monotonic() + 10
    while (tmp_path / "water1").exists() or sleeping(tmp_path / "run"):
        assert time.monotonic() < until_s
        time.sleep(0.02)
    assert (tmp_path / "water3").exists()
    assert (tmp_path / "told").read_text() == "again\n"


def sleeping(folder: Path) -> list[int]:
    """The processes that work in a folder."""
    found = []
    for pid in pids():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cwd").readlink() == folder:
                found.append(pid)
    return found

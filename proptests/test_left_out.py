"""Steps that are not possible on this machine: not drawn, named once, and a clear error in an explicit plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.spec.feasible import check_plan, left_out, left_out_text
from graphquake.harness.spec.plan import parse_plan
from graphquake.machines.findings.fault_coverage import drawable
from graphquake.machines.frontends.commands.try_command import steps_texts
from graphquake.machines.plans.machine import PlanMachine
from graphquake.machines.runners.budget import Budget
from graphquake.machines.sessions.search import draw_plans
from graphquake.machines.sessions.session import Session, dry_run
from graphquake.machines.sessions.session_options import Options

from support.made import spec_of

pytestmark = pytest.mark.simulated

STEPS: dict[str, dict[str, Any]] = {
    "there": {"do": "true", "role": "decode"},
    "gone": {"do": "no-such-program --now", "role": "decode"},
    "back": {"do": "true", "undo": "./no-such-script"},
}
SPEC = on_this_machine(spec_of(steps=STEPS, promises={"answers": False}))
GONE = 'made.toml: steps.gone.do: "no-such-program" is not a program on this machine'


def test_a_missing_program_is_named() -> None:
    """The reason names the file, the key and the program. A program that is there, or that the file's PATH may hold, is not missing."""
    assert left_out(SPEC) == {
        "gone": GONE,
        "back": 'made.toml: steps.back.undo: "./no-such-script" is not a program on this machine',
    }
    assert left_out(on_this_machine(spec_of(steps=STEPS, env={"PATH": "/opt/bin"}))) == {}


def test_a_step_that_is_not_possible_is_not_drawn() -> None:
    """Neither the sweep nor the draw asks for it, and a search does not report it as not tried."""
    plans = draw_plans(SPEC, 1, 60)
    verbs = {step.verb for plan in plans for step in plan.steps}
    assert "there" in verbs
    assert not verbs & {"gone", "back"}
    said: list[str] = []
    dry_run(SPEC, Options(1, Path("unused")), said.append, PlanMachine)
    assert any("there decode" in line for line in said)
    assert not any(" gone" in line or " back" in line for line in said)
    assert {"there decode"} == {one for one in drawable(SPEC) if one.split()[0] in STEPS}


def test_a_built_in_kind_that_is_not_possible_is_left_out() -> None:
    """A target may lack a built-in kind as well. Kinds with the same reason are named together."""
    spec = replace(spec_of(), lacks={"stall": "no signals", "kill": "no signals", "respawn": "x"})
    drawn = {step.called for plan in draw_plans(spec, 1, 40) for step in plan.steps}
    assert "terminate" in drawn
    assert not drawn & {"kill", "stall", "respawn"}
    assert left_out_text(spec) == "kill, stall: no signals; respawn: x"
    assert left_out_text(spec_of()) == ""


def test_an_explicit_plan_is_an_error() -> None:
    """The error names the step, and what is missing."""
    plan = parse_plan("p", ["wait 1 s", "gone decode 0"], SPEC.own_steps)
    with pytest.raises(InputError) as raised:
        check_plan(SPEC, plan, "plan")
    assert str(raised.value) == f'plan: step 2, "gone decode 0": not possible here: {GONE}'
    for text, verb in (("kill decode 0", "kill"), ("stall decode 0 for 1 s", "stall")):
        spec = replace(spec_of(), lacks={verb: "no signals"})
        with pytest.raises(InputError, match="not possible here: no signals"):
            check_plan(spec, parse_plan("p", [text]), "plan")


def test_try_names_what_is_left_out() -> None:
    """There is one line for each reason."""
    said = [line for line in steps_texts(SPEC) if line.startswith("left out")]
    assert said[0] == f"left out: gone: {GONE}"
    assert len(said) == 2
    spec = replace(spec_of(), lacks={"stall": "no signals", "kill": "no signals"})
    assert "left out: kill, stall: no signals" in list(steps_texts(spec))


def test_a_search_names_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line comes before the first run, in the first shard only."""
    said: list[str] = []

    class Reporter:
        """Collects the lines."""

        def line(self, text: str) -> None:
            """Take a line."""
            said.append(text)

    monkeypatch.chdir(tmp_path)
    for shard in (0, 1):
        options = Options(1, tmp_path / "results", corpus=tmp_path / "cases", shard=shard)
        session = Session(SPEC, options, Budget(60.0), Reporter())  # type: ignore[arg-type]  # only lines
        session._say_left_out()
    assert len(said) == 1
    assert said[0].startswith(f"made: left out: gone: {GONE}; back: ")

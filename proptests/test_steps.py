"""A kind of step that no other file knows: read, drawn, checked, carried out, undone and shrunk."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import Resumed, StepDone
from graphquake.harness.spec.feasible import check_plan, feasible
from graphquake.harness.spec.plan import Plan, Step, parse_plan
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps import table
from graphquake.harness.spec.steps.actions import Landed, Scene, landed_now
from graphquake.harness.spec.steps.kind import (
    ROLE,
    SECONDS,
    WAIT_MAX_S,
    Draft,
    Effect,
    Pick,
    Rule,
    number,
)
from graphquake.harness.spec.steps.knob import Knob
from graphquake.harness.spec.steps.model import Graph, GraphModel
from graphquake.machines.plans.novelty import LOOK, Novelty, features
from graphquake.machines.plans.subplan import embeds
from graphquake.machines.sessions.search import draw_plans
from graphquake.machines.shrinking.shrink import shrink
from graphquake.machines.shrinking.trials import Trial

from support.fake_target import FakeTargets, fake_spec
from support.simulated import SPEC
from support.toys import in_loop
from support.undisturbed import run_live

FROM = ROLE.replace("role", "other").replace("index", "at")
CUT_S = (0.5, 2.0)


@dataclass(frozen=True, slots=True)
class Cut(Step):
    """A sever of the network between two replicas, as later kinds need: several aims, a duration, an undo, and a simpler form."""

    one: Replica
    other: Replica
    for_s: float = math.inf
    both_ways: bool = False

    verb: ClassVar[str] = "sever"
    form: ClassVar[str] = "sever ROLE INDEX from ROLE INDEX[ both ways][ for T s]"
    pattern: ClassVar[str] = (
        rf"sever {ROLE} from {FROM}(?P<both> both ways)?(?: for (?P<for>{SECONDS}) s)?"
    )
    is_fault: ClassVar[bool] = True
    undone: ClassVar[list[str]] = []
    undoing: ClassVar[list[str]] = []
    undo_s: ClassVar[float] = 0.0

    def __str__(self) -> str:
        both = " both ways" if self.both_ways else ""
        until = "" if self.for_s == math.inf else f" for {self.for_s:.2f} s"
        return f"sever {self.one} from {self.other}{both}{until}"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Cut:
        """The step from its text form."""
        for_s = number(found["for"], 0.01, WAIT_MAX_S, "seconds") if found["for"] else math.inf
        one, other = (
            Replica(found["role"], int(found["index"])),
            Replica(found["other"], int(found["at"])),
        )
        return cls(one, other, for_s, both_ways=bool(found["both"]))

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Between any replica and the first one."""
        return (Rule("sever", _draw, picks=True),)

    @property
    def aims(self) -> tuple[Replica, ...]:
        """Both ends."""
        return (self.one, self.other)

    @property
    def lasts_s(self) -> float:
        """The time until the network is whole again."""
        return self.for_s

    def effect(self, graph: Graph) -> Effect:
        """Both ends go on."""
        del graph
        return "nothing"

    async def run(self, scene: Scene) -> Landed:
        """Pretend."""
        return landed_now(f"sever as step {scene.number}")

    async def undo(self, scene: Scene) -> Landed:
        """Pretend."""
        del scene
        self.undoing.append(str(self))
        await asyncio.sleep(self.undo_s)
        self.undone.append(str(self))
        return landed_now("whole again")

    def knobs(self) -> tuple[Knob, ...]:
        """Its length."""
        return () if self.for_s == math.inf else (Knob("for_s", 0.01, 0.05, is_time=True),)

    def simpler(self, graph: Graph) -> Iterator[Step]:
        """One way is simpler than both."""
        del graph
        if self.both_ways:
            yield replace(self, both_ways=False)

    def covers(self, other: Step) -> bool:
        """A sever of both ways covers one of one way."""
        if not isinstance(other, Cut):
            return False
        return Step.covers(self, replace(other, both_ways=self.both_ways or other.both_ways))

    def moved(self, to: Callable[[Replica], Replica]) -> Cut:
        """Both ends move."""
        return replace(self, one=to(self.one), other=to(self.other))


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    first, *rest = draft.model.spec.replicas()
    yield Cut(pick.one_of(rest), first, pick.one_of(CUT_S), both_ways=pick.flag())


@pytest.fixture(autouse=True)
def table_with_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is the one place that finds a kind."""
    monkeypatch.setattr(table, "KINDS", [*table.KINDS, Cut])
    monkeypatch.setattr(Cut, "undone", [])
    monkeypatch.setattr(Cut, "undoing", [])


def plan_of(*lines: str) -> Plan:
    """Return the plan of some lines of text."""
    return parse_plan("test", lines)


@pytest.mark.parametrize(
    "line",
    [
        "sever decode 1 from frontend 0",
        "sever decode 1 from frontend 0 for 2.00 s",
        "sever decode 1 from frontend 0 both ways for 0.50 s",
    ],
)
def test_a_new_kind_survives_its_text(line: str) -> None:
    """A plan with a step of a new kind is read from its text and written as the same text."""
    assert plan_of(line).lines() == [line]


def test_a_wrong_form_of_a_new_kind_names_the_right_one() -> None:
    """The error message gives the form that the kind declares."""
    with pytest.raises(InputError, match=r"is not of the form: sever ROLE INDEX from ROLE INDEX"):
        plan_of("sever decode 1")


def test_a_new_kind_is_checked_by_the_model() -> None:
    """Every aim must exist and live. A sever that goes on does not end by a short wait."""
    with pytest.raises(InputError, match='has no role "decod"'):
        check_plan(SPEC, plan_of("sever frontend 0 from decod 1"), "test")
    assert not feasible(SPEC, plan_of("kill decode 1", "sever frontend 0 from decode 1"))
    (step,) = plan_of("sever frontend 0 from decode 1 for 2.00 s").steps
    after = step.after(GraphModel(SPEC))
    assert [one.left_s for one in after.later(0.5).ongoing] == [1.5]
    assert not after.later(2.0).ongoing
    assert after.serves()


def test_an_endless_step_goes_on_when_all_is_ready() -> None:
    """A step that only heal undoes survives `wait until ready` in the model."""
    (step,) = plan_of("sever frontend 0 from decode 1").steps
    assert step.after(GraphModel(SPEC)).settled().later(600.0).ongoing


@pytest.mark.simulated
def test_a_new_kind_is_drawn() -> None:
    """The rule of a new kind is drawn as any other, and only if the graph file allows the verb."""
    spec = replace(SPEC, faults=("sever", "kill"))
    drawn = [plan for seed in range(1, 6) for plan in draw_plans(spec, seed, 12)]
    cuts = [step for plan in drawn for step in plan.steps if isinstance(step, Cut)]
    assert {sever.both_ways for sever in cuts} == {True, False}
    assert {sever.for_s for sever in cuts} == set(CUT_S)
    without = draw_plans(replace(SPEC, faults=("kill",)), 1, 20)
    assert not any(isinstance(step, Cut) for plan in without for step in plan.steps)


def test_a_new_kind_has_features() -> None:
    """Both ends of a sever are hit, and neither dies."""
    shown = features(SPEC, plan_of("sever decode 1 from frontend 0 for 2.00 s"))
    assert {("hits", "decode", "1"), ("hits", "frontend", "0")} <= shown
    assert not any(feature[0] == "dies" for feature in shown)


def test_an_endless_step_may_be_run() -> None:
    """A step that only heal undoes counts no time, so it may be chosen before others that show less."""
    novelty = Novelty(SPEC)
    plain = plan_of("burst 5 over 0.00 s")
    assert not any(novelty.has_turn(plain) for _ in range(LOOK))
    assert novelty.has_turn(plan_of("sever decode 1 from frontend 0"))


@in_loop
@pytest.mark.parametrize("length", ["", " for 0.10 s"])
async def test_a_new_kind_is_carried_out_and_undone(length: str, tmp_path: Path) -> None:
    """The step lands with its proof. It is undone once, when its time is over or at heal."""
    plan = plan_of("sever worker 0 from front 0" + length)
    run = await run_live(fake_spec(tmp_path), plan, tmp_path / "run", opener=FakeTargets())
    assert run.verdict.kind == "kept"
    (done,) = run.history.of(StepDone)
    assert done.proof.startswith("sever as step 0, ")
    assert Cut.undone == plan.lines()
    assert [event.replica for event in run.history.of(Resumed)] == [
        Replica("worker", 0),
        Replica("front", 0),
    ]


@in_loop
async def test_heal_release_undoes_ongoing_steps(tmp_path: Path) -> None:
    """`heal release` leaves the dead dead, and still ends a step that only heal undoes."""
    plan = plan_of("sever worker 0 from front 0", "heal release")
    await run_live(fake_spec(tmp_path), plan, tmp_path / "run", opener=FakeTargets())
    assert Cut.undone == ["sever worker 0 from front 0"]


@in_loop
async def test_a_cancelled_run_waits_for_ends_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that is being undone when its run is cancelled is undone before the graph is closed."""
    monkeypatch.setattr(Cut, "undo_s", 0.3)
    plan = plan_of("sever worker 0 from front 0 for 0.10 s", "wait 9.00 s")
    running = run_live(fake_spec(tmp_path), plan, tmp_path / "run", opener=FakeTargets())
    run = asyncio.ensure_future(running)
    async with asyncio.timeout(20):
        while not Cut.undoing:
            await asyncio.sleep(0.01)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert Cut.undone == plan.lines()[:1]


def test_a_new_kind_is_shrunk() -> None:
    """The shrinker leaves out other steps, takes the simpler form, and lowers the number of a new kind."""
    plan = plan_of(
        "kill prefill 0", "sever decode 1 from frontend 0 both ways for 2.00 s", "wait 1.00 s"
    )

    def run(one: Plan) -> Trial:
        broken = any(isinstance(step, Cut) and step.for_s >= 0.4 for step in one.steps)
        return Trial("broken" if broken else "kept")

    shrunk = shrink(SPEC, plan, Trial("broken"), run)
    (step,) = shrunk.plan.steps
    assert isinstance(step, Cut)
    assert not step.both_ways
    # A time is lowered until the gap to the rejected value is half of it.
    assert 0.4 <= step.for_s <= 0.8
    assert embeds(shrunk.plan, plan)
    assert shrunk.any_replica is True

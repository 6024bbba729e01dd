"""Kinds of fault beyond kills, terminations and plain stalls: they are drawn, and hold up no bug that needs only those."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import ClassVar

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, Step, parse_plan
from graphquake.harness.spec.steps import table
from graphquake.harness.spec.steps.actions import Landed, Scene, landed_now
from graphquake.harness.spec.steps.kind import FLAG, ROLE, Aimed, Draft, Pick, Rule
from graphquake.machines.findings.fault_coverage import drawable
from graphquake.machines.plans.pairs import pairs
from graphquake.machines.plans.sweep import sweep
from graphquake.machines.sessions.search import draw_plans

from support.made import spec_of
from support.searched import searched
from support.sim_runner import SimRunner

pytestmark = pytest.mark.simulated


@dataclass(frozen=True, slots=True)
class Pause(Aimed):
    """A kind that is drawn by default, with a title that is not its verb."""

    verb: ClassVar[str] = "pause"
    title: ClassVar[str] = "pause once"
    form: ClassVar[str] = "pause ROLE INDEX"
    pattern: ClassVar[str] = rf"pause {ROLE}"
    is_fault: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"pause {self.aim}"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Pause:
        """The step from its text form."""
        return cls(found["role"], int(found["index"]))

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """At any replica, seldom."""
        flags = {"first": FLAG}
        return (Rule("pause", _draw, at=cls.at, seldom=True, timed=True, ahead=flags),)

    async def run(self, scene: Scene) -> Landed:
        """Pretend."""
        del scene
        return landed_now("paused")


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    del draft
    yield Pause.at(pick.replica)


@dataclass(frozen=True, slots=True)
class PauseTwice(Pause):
    """A kind with the same verb that is not drawn by default."""

    title: ClassVar[str] = "pause twice"
    form: ClassVar[str] = "pause ROLE INDEX twice"
    pattern: ClassVar[str] = rf"pause {ROLE} twice"
    by_default: ClassVar[bool] = False

    def __str__(self) -> str:
        return f"pause {self.aim} twice"

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """At any replica, seldom."""
        return (Rule("pause_twice", _draw_twice, at=cls.at, seldom=True),)


def _draw_twice(draft: Draft, pick: Pick) -> Iterator[Step]:
    del draft
    yield PauseTwice.at(pick.replica)


@pytest.fixture(autouse=True)
def table_with_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is the one place that finds a kind. Here it has the plain kinds and these two."""
    plain = [
        kind
        for kind in table.KINDS
        if not kind.rules() or not all(rule.seldom for rule in kind.rules())
    ]
    monkeypatch.setattr(table, "KINDS", [*plain, Pause, PauseTwice])


def faults_of(*names: str) -> tuple[str, ...]:
    """The kinds that a list of the graph file means."""
    return spec_of(faults=list(names)).faults


def test_a_list_names_titles_verbs_or_all() -> None:
    """A verb of several kinds means all of them. `all` means every kind, and no list means those that are drawn by default."""
    assert faults_of("pause twice") == ("pause twice",)
    assert faults_of("kill", "pause") == ("kill", "pause once", "pause twice")
    assert "pause once" in spec_of().faults
    assert "pause twice" not in spec_of().faults
    assert set(faults_of("all")) == {*spec_of(faults=["all"]).faults, "pause twice"}
    assert "pause twice" in faults_of("all")
    steps = {"tick": {"do": "true"}, "note": {"do": "true", "fault": False}}
    assert "tick" in spec_of(faults=["all"], steps=steps).faults
    assert "note" not in spec_of(faults=["all"], steps=steps).faults
    with pytest.raises(InputError, match=r'names "pause twic", .*did you mean "pause twice"'):
        faults_of("pause twic")


def test_a_kind_that_is_off_by_default_may_be_asked_for() -> None:
    """It is drawn and reported as not tried only if a list names it. A plan may use it in any case."""

    def kinds(spec: GraphSpec) -> set[str]:
        return {step.called for plan in draw_plans(spec, 1, 40) for step in plan.steps}

    assert "pause once" in kinds(spec_of())
    assert "pause twice" not in kinds(spec_of())
    assert "pause twice" in kinds(spec_of(faults=["all"]))
    assert "pause twice decode" in drawable(spec_of(faults=["all"]))
    assert "pause twice decode" not in drawable(spec_of())
    assert parse_plan("p", ["pause decode 1 twice"]).lines() == ["pause decode 1 twice"]


def test_a_kind_of_ones_own_wins_over_a_younger_built_in_kind() -> None:
    """A graph file that had defined a step of that name before is still read, and means its own step."""
    spec = spec_of(steps={"pause": {"do": "true", "role": "decode"}})
    (step,) = parse_plan("p", ["pause decode 1"], spec.own_steps).steps
    assert step.is_own
    drawn = [step for plan in draw_plans(spec, 1, 30) for step in plan.steps]
    pauses = [step for step in drawn if step.verb == "pause"]
    assert pauses
    assert all(step.is_own for step in pauses)
    with pytest.raises(InputError, match='"kill" is a word of the plan language'):
        spec_of(steps={"kill": {"do": "true"}})


def test_seldom_kinds_have_a_sweep_of_their_own() -> None:
    """The first sweep does not grow by a kind that is seldom drawn."""
    later = sweep(spec_of(faults=["all"])).seldom
    assert {
        (step.called, one.role) for plan in later for step in plan.steps for one in step.aims
    } >= {
        (title, role)
        for title in ("pause once", "pause twice")
        for role in ("frontend", "prefill", "decode")
    }
    first = sweep(spec_of(faults=["all"])).plain
    assert not any(isinstance(step, Pause) for plan in first for step in plan.steps)
    assert first == sweep(spec_of(faults=["kill", "terminate", "stall"])).plain


def test_seldom_kinds_share_one_place_in_the_draw() -> None:
    """However many kinds there are, they take a small share of the faults, also of those that are timed by an event."""
    drawn = draw_plans(spec_of(faults=["all"]), 1, 80)
    count = Counter(isinstance(step, Pause) for plan in drawn for step in plan.faults)
    assert 0.02 < count[True] / count.total() < 0.3
    timed = [
        b for plan in drawn for a, b in pairwise(plan.steps) if "until" in str(a) and b.is_fault
    ]
    assert any(isinstance(step, Pause) for step in timed)
    assert sum(isinstance(step, Pause) for step in timed) < len(timed) / 2


def test_seldom_kinds_are_in_a_quarter_of_the_pairs() -> None:
    """One step of such a pair is a plain one, either the first or the second."""
    spec = spec_of(faults=["all"])
    found = list(islice(pairs(spec, sweep(spec).plain, 1, sweep(spec).seldom), 400))
    places = Counter(tuple(isinstance(plan.steps[at], Pause) for at in (0, -1)) for plan in found)
    assert places[True, True] == 0
    assert min(places[True, False], places[False, True]) > 20
    assert places[False, False] > 250


def test_a_search_sweeps_them_between_drawn_plans(tmp_path: Path) -> None:
    """After the first sweep, a drawn plan, a pair and two plans of the second sweep take turns, until the second sweep has ended."""
    runner = SimRunner([], runs_max=160)
    searched(runner, tmp_path)
    first, second = sweep(runner.spec).first, set(sweep(runner.spec).second)
    assert not set(runner.runs[: len(first)]) & second
    at = [place for place, plan in enumerate(runner.runs) if plan in second]
    assert {runner.runs[place] for place in at} == second
    assert {b - a for a, b in pairwise(at)} <= {1, 2, 3}


def _pauses(plan: Plan) -> bool:
    return any(isinstance(step, Pause) for step in plan.steps)

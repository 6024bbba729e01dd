"""Tests of the how-to guides' promise and rule: both behave as the guides say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from graphquake.harness.history.request import Outcome
from graphquake.harness.promises.availability import availability
from graphquake.harness.promises.judgement import judge
from graphquake.harness.spec.feasible import check_plan
from graphquake.harness.spec.graph import GraphSpec, load_graph
from graphquake.machines.plans.drawn_rules import machine_for
from graphquake.machines.plans.machine import PlanMachine
from graphquake.machines.sessions.search import draw_plans

from support.made import Made, spec_of
from support.pages import DOCS, ROOT, blocks, prose

pytestmark = pytest.mark.simulated


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the Python files of the guides, where Python looks for modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for block in blocks("python"):
        name = block.text.splitlines()[0].removeprefix("# ")
        if block.page.parent == DOCS / "how-to" and name != "conftest.py":
            (tmp_path / name).write_text(block.text, encoding="utf-8")
    (graph,) = [block for block in blocks("toml") if block.page == ROOT / "README.md"]
    (tmp_path / "my.toml").write_text(graph.text, encoding="utf-8")


def promising(name: str) -> GraphSpec:
    """A graph that makes one promise of a user's own, and no other one."""
    off = dict.fromkeys(
        ("ends", "answers", "error_window", "recovery", "throughput", "blast_radius"), False
    )
    return spec_of(promises={**off, "views_agree": False, "no_leak": False, "extra": [name]})


def test_the_own_promise_sees_a_5xx_while_a_path_was_up() -> None:
    """`no_5xx` is broken by an HTTP 503 while a path was up, with the request and the signature that the guide shows."""
    made = Made(promising("my_promises:no_5xx")).steady(0, 2)
    history = made.ask(2.0, outcome=Outcome.ERROR, detail="HTTP 503").phase("drain", 4).history()
    (violation,) = judge(history).violations
    assert str(violation.signature) == "no_5xx / HTTP 503 / path left"
    assert violation.request == len(history.requests) - 1


def test_the_own_promise_asks_for_nothing_without_a_path() -> None:
    """`no_5xx` is kept if the only prefill worker is dead, and for answers that are right."""
    made = Made(promising("my_promises:no_5xx")).steady(0, 2).step("kill prefill 0", 2.0)
    history = made.ask(3.0, outcome=Outcome.ERROR, detail="HTTP 503").phase("drain", 4).history()
    assert judge(history).kind == "kept"


def test_the_empty_promise_is_kept() -> None:
    """Every history keeps the smallest promise of the guide."""
    made = Made(promising("promise_nothing:nothing")).steady(0, 2)
    assert judge(made.ask(2.0, outcome=Outcome.ERROR).phase("drain", 4).history()).kind == "kept"


def test_the_own_rule_draws_rolling_restarts(tmp_path: Path) -> None:
    """The rule of the guide draws rolling restarts, among other plans, all of which are possible."""
    names: dict[str, Any] = runpy.run_path(str(tmp_path / "test_rolling.py"))
    rolling: type[PlanMachine] = names["Rolling"]
    spec = load_graph("my.toml")
    plans = draw_plans(spec, 7, 80, rolling)
    restart = "; ".join(
        f"terminate worker {index}; respawn worker {index}; wait until ready" for index in range(2)
    )
    assert any(restart in plan.one_line() for plan in plans)
    assert not all(restart in plan.one_line() for plan in plans)
    for plan in plans:
        check_plan(spec, plan, "drawn")


def names_of(page: str, owner: str) -> set[str]:
    """The attributes of something that the tables of a guide name, `history.ended()` say."""
    rows = [line for line in prose(DOCS / "how-to" / page).splitlines() if line.startswith("| `")]
    return set(re.findall(rf"`{owner}\.(\w+)", "\n".join(row.split("|")[1] for row in rows)))


def test_the_guide_to_promises_names_existing_functions() -> None:
    """Every attribute of a history and of its availability that the guide names exists."""
    history = Made().history()
    of_history, of_up = names_of("own-promise.md", "history"), names_of("own-promise.md", "up")
    assert len(of_history) >= 6
    assert {name for name in of_history if not hasattr(history, name)} == set()
    assert len(of_up) >= 4
    assert {name for name in of_up if not hasattr(availability(history), name)} == set()


def test_the_guide_to_rules_names_existing_functions() -> None:
    """Every attribute of a machine that the guide names exists."""
    machine = machine_for(spec_of(), lambda _: None)()
    named = names_of("own-rules.md", "self")
    assert len(named) >= 8
    assert {name for name in named if not hasattr(machine, name)} == set()

"""The planted bugs: what their docstrings say, and that they do it. Whether they are *found* is for `tox -e bugs`."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphquake.harness.promises.builtin import BUILT_IN
from graphquake.harness.run.live import run_live
from graphquake.machines.plans.graph_model import feasible

from support.planted import planted, read_bug
from support.toys import in_loop

BUGS = planted()


def test_there_are_enough_of_them() -> None:
    """And they break all kinds of promises."""
    assert len(BUGS) >= 20
    assert {promise for bug in BUGS.values() for promise in bug.breaks} == set(BUILT_IN)


@pytest.mark.parametrize("name", BUGS)
def test_what_is_said_of_a_bug_makes_sense(name: str) -> None:
    """Promises that are made, a plan that is possible, a module in the command of each role that it is in."""
    bug = BUGS[name]
    assert set(bug.breaks) <= set(bug.spec.promises.made)
    assert feasible(bug.spec, bug.plan)
    with_bug = {role.name for role in bug.spec.roles if f"{name}.py" in role.command}
    assert with_bug == set(bug.roles)


def test_a_bug_that_says_too_little_is_refused(tmp_path: Path) -> None:
    """It names what is missing."""
    path = tmp_path / "vague.py"
    path.write_text('"""Something is wrong.\n\nIn: registry\nBreaks: ends\n"""\n')
    with pytest.raises(ValueError, match="Modelled on, Plan"):
        read_bug(path)


@in_loop
async def test_a_bug_shows_with_its_plan(tmp_path: Path) -> None:
    """Two of them that show every time, one in an answer and one in a process."""
    for name in ("one_replica", "stale_lock"):
        bug = BUGS[name]
        run = await run_live(bug.spec, bug.plan, tmp_path / name)
        assert run.verdict.violations[0].promise in bug.breaks, name

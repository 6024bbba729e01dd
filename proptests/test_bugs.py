"""The planted bugs do what their docstrings say. `tox -e bugs` measures whether searches find them."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphquake.harness.promises.builtin import BUILT_IN
from graphquake.harness.spec.feasible import feasible

from support.planted import planted, read_bug
from support.toys import in_loop
from support.undisturbed import run_live

BUGS = planted()


def test_the_planted_bugs_break_every_promise() -> None:
    """There are at least 20 planted bugs, and together they break every built-in promise."""
    assert len(BUGS) >= 20
    assert {promise for bug in BUGS.values() for promise in bug.breaks} == set(BUILT_IN)


@pytest.mark.parametrize("name", BUGS)
def test_a_bugs_docstring_fits_its_graph(name: str) -> None:
    """The graph makes the promises that the bug breaks, the plan is possible, and the command of each of its roles runs the module."""
    bug = BUGS[name]
    assert set(bug.breaks) <= set(bug.spec.promises.made)
    assert feasible(bug.spec, bug.plan)
    with_bug = {role.name for role in bug.spec.roles if f"{name}.py" in role.command}
    assert with_bug == set(bug.roles)


def test_a_docstring_without_a_key_is_refused(tmp_path: Path) -> None:
    """The error names the keys that are missing."""
    path = tmp_path / "vague.py"
    path.write_text('"""Something is wrong.\n\nIn: registry\nBreaks: ends\n"""\n')
    with pytest.raises(ValueError, match="Modelled on, Plan"):
        read_bug(path)


@in_loop
async def test_a_bug_shows_with_its_plan(tmp_path: Path) -> None:
    """A run of the minimal plan breaks a promise of the bug: one bug shows in an answer, another in a process."""
    for name in ("one_replica", "stale_lock"):
        bug = BUGS[name]
        run = await run_live(bug.spec, bug.plan, tmp_path / name)
        assert run.verdict.violations[0].promise in bug.breaks, name

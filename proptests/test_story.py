"""Tests of the story of a run: at most ten lines, in order of time."""

from __future__ import annotations

import pytest

from graphquake.harness.history.request import (
    Outcome,
)
from graphquake.harness.reports.story import LINES_MAX, story

from support.made import Made, plan_of

pytestmark = pytest.mark.simulated


def test_a_story_tells_the_events_in_order() -> None:
    """The story has the fault, the deaths, the first and the last failure, the replicas that came back, and the first success."""
    made = Made(plan=plan_of("kill decode 0")).steady(0.0, 1.5)
    made.step("kill decode 0", 1.5).dies("prefill 0", 1.6, status=1)
    made.steady(1.7, 2.7, Outcome.ERROR).spawn("decode 0", 2.0, ready_s=2.5).phase("recover", 2.0)
    lines = story(made.steady(2.8, 4.0).history())
    texts = [line.split("  ", 1)[1].strip() for line in (one.strip() for one in lines)]
    assert texts[0].startswith("kill decode 0: made")
    assert texts[1] == "prefill 0 dies unexpectedly, exit status 1"
    assert texts[2].startswith("first of 20 × HTTP 503: request")
    assert texts[3] == "all dead replicas have been started again"
    assert texts[4] == "decode 0 is ready again"
    assert texts[5].startswith("last of 20 × HTTP 503")
    assert texts[6].startswith("right from here on: request")
    assert [float(line.split()[0]) for line in lines] == sorted(float(x.split()[0]) for x in lines)


def test_a_heal_is_told_only_if_something_had_died() -> None:
    """After a stall nothing is started again, and the story does not say so."""
    made = Made(plan=plan_of("stall decode 0 for 0.50 s")).steady(0.0, 1.5)
    made.step("stall decode 0 for 0.50 s", 1.5).phase("recover", 2.0)
    assert not any("started again" in line for line in story(made.steady(2.1, 3.0).history()))


def test_a_long_story_leaves_out_the_least_important_events() -> None:
    """If there are too many lines, faults stay and returns are left out."""
    made = Made(plan=plan_of(*["kill decode 0"] * LINES_MAX)).steady(0.0, 1.0)
    for number in range(LINES_MAX):
        made.step("kill decode 0", 1.5 + number, number=number)
        made.spawn("decode 0", 1.6 + number, ready_s=1.8 + number)
    lines = story(made.history())
    assert len(lines) == LINES_MAX
    assert all("kill decode 0" in line for line in lines)

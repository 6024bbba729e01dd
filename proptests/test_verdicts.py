"""Tests of the kinds of verdicts: kept or broken, invalid, and weak."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphquake.harness.history.events import Invalidated
from graphquake.harness.history.request import Outcome
from graphquake.harness.promises.judgement import judge

from support.made import Made, healthy, says

pytestmark = pytest.mark.simulated


def test_a_baseline_that_fails_makes_the_run_invalid() -> None:
    """A failure before the plan makes a run invalid, also if faults and failures come after it."""
    made = (
        healthy()
        .ask(0.5, outcome=Outcome.ERROR)
        .step("kill decode 0", 2.0)
        .ask(6.0, outcome=Outcome.ERROR)
    )
    verdict = judge(made.history())
    assert verdict.kind == "invalid"
    assert verdict.causes == ("baseline failed: HTTP 503",)


def test_a_fault_that_did_not_land_makes_the_run_invalid() -> None:
    """A fault that did not land makes a run invalid, unless its victim had died unexpectedly before: that is a violation."""
    assert says(healthy().step("kill decode 0", 2.0, landed=False))[0] == "invalid"
    made = healthy().dies("decode 0", 1.9, status=1).step("kill decode 0", 2.0, landed=False)
    assert says(made)[1] == ("blast_radius / decode died / exit status 1",)


def test_broken_beats_invalid_only_if_it_came_first() -> None:
    """A violation makes a run broken if it comes before the cause that makes it invalid, and not if it comes after."""
    for at_s, expected in ((6.0, "broken"), (4.0, "invalid")):
        made = healthy().step("kill decode 0", 2.0).ask(5.0, outcome=Outcome.ERROR)
        made.events.append(Invalidated(at_s, "the harness stumbled"))
        assert says(made)[0] == expected


def test_a_busy_machine_spares_a_run_that_kept_its_promises() -> None:
    """Less CPU time does not help a graph. So a run without violations is kept, and weak. A violation makes it invalid if it came later."""
    busy = Invalidated(4.0, "machine too busy: 2 threads", spares_kept=True)
    kept = healthy().step("kill decode 0", 2.0)
    kept.events.append(busy)
    assert judge(kept.history()).kind == "kept"
    assert judge(kept.history()).weak_because == ("machine too busy: 2 threads",)
    for busy_s, expected in ((6.0, "broken"), (4.0, "invalid")):
        made = healthy().step("kill decode 0", 2.0).ask(5.0, outcome=Outcome.ERROR)
        made.events.append(replace(busy, at_s=busy_s))
        assert says(made)[0] == expected
    kept.step("kill decode 1", 3.0, landed=False)
    assert says(kept)[0] == "invalid"


def test_a_late_client_makes_the_run_invalid() -> None:
    """A run is invalid if more than 2% of its requests left over 0.25 s too late. In a short run, a single one is no such share."""
    made = healthy()
    for _ in range(10):
        made.ask(6.0, late_s=0.4)
    assert says(made)[0] == "invalid"
    for late, expected in ((1, "kept"), (2, "invalid")):
        made = Made().steady(0.0, 0.2)
        for _ in range(late):
            made.ask(0.1, late_s=0.4)
        assert len(made.history().requests) < 50
        assert says(made)[0] == expected


def test_a_run_that_was_mostly_outage_is_weak() -> None:
    """A run is weak if less than a quarter of its requests could be judged."""
    made = Made().steady(0.0, 12.0).step("kill prefill 0", 2.0)
    assert judge(made.history()).weak
    assert not judge(healthy().history()).weak

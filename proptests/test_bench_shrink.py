"""The shrinker benchmark: the ways of shrinking work as published, and the counts are right."""

from __future__ import annotations

import pytest
from hypothesis.errors import FlakyFailure

from graphquake.harness.spec.plan import Burst, Kill, Plan, Wait
from graphquake.machines.shrinking.trials import Trial

from bench import interactive
from bench.bench_shrink import WAYS, Task, measure
from bench.costs import Costs, sizes
from bench.interactive import AsItComes
from bench.measured import Row, row_of, spread, summary
from bench.shrink_tables import checks, shapes_table, ways_table
from bench.ways import FINDING, Ddmin, Ours, ProbDD, Ran, Result, Way
from support.simulated import SHAPES, Simulated, failing

pytestmark = pytest.mark.simulated

BY_NAME = {shape.name: shape for shape in SHAPES}
COSTS = Costs()


@pytest.mark.parametrize("way", [Ddmin(COSTS), ProbDD(COSTS), Ours(COSTS)])
@pytest.mark.parametrize("name", ["pair of kills in order", "burst after respawn"])
@pytest.mark.parametrize("seed", range(3))
def test_a_bug_that_always_shows_becomes_step_minimal(way: Way, name: str, seed: int) -> None:
    """At rate 1, every way ends with a minimal plan, and A is at most B. Ways without confirming runs do not run any plan twice."""
    shape = BY_NAME[name]
    result = way(shape, failing(shape, seed), Simulated(shape, seed))
    row = row_of("way", shape, 1.0, seed, result)
    assert (row.says, row.is_minimal, row.steps) == (FINDING, True, shape.steps)
    assert 0 < row.until_held <= row.sought <= row.runs
    if not isinstance(way, Ours):
        assert len({ran.plan for ran in result.runs}) == row.runs


def test_nothing_is_left_out_without_a_run_that_broke() -> None:
    """At rate 0, ddmin and ProbDD return the failing plan unchanged."""
    shape = BY_NAME["pair of kills in order"]
    plan = failing(shape, 0)
    for way in (Ddmin(COSTS), ProbDD(COSTS)):
        result = way(shape, plan, Simulated(shape, 0, 0.0))
        assert (result.plan, result.says) == (plan, FINDING)
        assert row_of("way", shape, 0.0, 0, result).until_held == 0


def test_the_least_value_of_each_number() -> None:
    """The least burst above 37 is 38, and an unneeded stay may be 0. A wait may be shorter by the time of the step itself."""
    burst = BY_NAME["burst > 37 with one alive"]
    plan = Plan((Kill("decode", 0), Kill("decode", 1), Burst(60, 0.5, 0.25)), stay_s=12.0)
    found = {size.name: (size.least, size.is_near) for size in sizes(burst, plan)}
    assert found == {"stay_s": (0.0, False), "requests": (38.0, False)}
    near = Plan((Kill("decode", 0), Kill("decode", 1), Burst(47)))
    assert [size.is_near for size in sizes(burst, near)] == [True]

    late = BY_NAME["burst 0.8 s after a kill"]
    plan = Plan((Kill("prefill", 0), Wait(1.5), Burst(12)))
    assert [(s.name, s.least) for s in sizes(late, plan)] == [("for_s", 0.78), ("requests", 12.0)]


def test_the_seconds_of_a_run_add_up() -> None:
    """A kept run takes start, baseline, plan and later phases. A broken run ends a tick after its violation, an invalid one early."""
    shape = BY_NAME["single kill"]
    plan = Plan((Kill("decode", 0), Wait(5.0)), stay_s=2.0)
    assert COSTS.run_s(shape, plan, Trial("kept")) == pytest.approx(0.55 + 0.6 + 5.02 + 1.8 + 2.0)
    assert COSTS.run_s(shape, plan, Trial("broken")) == pytest.approx(
        0.55 + 0.6 + 0.02 + 2.1 + 0.25
    )
    assert COSTS.run_s(shape, plan, Trial("invalid")) == pytest.approx(0.55 + 0.6 + 5.02)
    slow = Costs(start_s=31.0, after_s=45.0)
    assert slow.run_s(shape, Plan((Wait(1.0),)), Trial("kept")) == pytest.approx(31 + 0.6 + 1 + 45)


def test_a_flaky_error_is_counted_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a rate of .3, Hypothesis hardly ever reproduces its failure. The error is counted by its name, and not as a plan."""
    shape = BY_NAME["single kill"]
    way = AsItComes(COSTS)
    for seed in range(20):
        result = way(shape, failing(shape, seed), Simulated(shape, seed, 0.3))
        if result.says != FINDING:
            break
    assert result.says.startswith("Flaky")
    row = row_of("hypothesis", shape, 0.3, seed, result)
    assert (row.is_minimal, row.numbers) == (False, 0)
    one = summary([row])
    assert (one.of, one.other, one.says) == (1, 1.0, {row.says: 1})
    assert one.sought.median is None
    assert f"100.0% ({row.says} 1)" in ways_table([row], ["hypothesis"])

    def flaky(_machine: object, **_: object) -> None:
        raise FlakyFailure("not seen again", [ValueError("the first time")])

    monkeypatch.setattr(interactive, "run_state_machine_as_test", flaky)
    assert way._run(interactive.Interactive) == "FlakyFailure"


def test_hypothesis_finds_the_bug() -> None:
    """At rate 1, Hypothesis ends with a plan in which the bug shows, and its last run is the final replay."""
    shape = BY_NAME["stale lease"]
    result = AsItComes(COSTS)(shape, failing(shape, 0), Simulated(shape, 0))
    assert result.says == FINDING
    assert result.runs[-1].trial.kind == "broken"
    assert shape.at_s(result.plan) is not None


def test_runs_for_evidence_alone_count_separately() -> None:
    """B leaves out runs for evidence and C counts them. A ends at the first broken run of the final steps. Their numbers do not matter."""
    shape = BY_NAME["burst > 37 with one alive"]
    kills = (Kill("decode", 0), Kill("decode", 1))
    large, small = Plan((*kills, Burst(60))), Plan((*kills, Burst(38)))
    yes, no = Trial("broken"), Trial("kept")
    runs = (Ran(Plan(kills), no), Ran(large, yes), Ran(small, yes), Ran(Plan(()), no, True))
    row = row_of("ours", shape, 1.0, 0, Result(small, FINDING, runs, 4.0, 3.0))
    assert (row.until_held, row.sought, row.runs) == (2, 3, 4)
    assert (row.near, row.numbers, row.live_s, row.sought_s) == (1, 1, 4.0, 3.0)


def test_median_and_percentile() -> None:
    """The median and the 95th percentile of 1 to 100 are right, and of no values there are none."""
    assert (spread(range(1, 101)).median, spread(range(1, 101)).p95) == (50.5, 95)
    assert str(spread([])) == "–"


def test_the_tables_and_checks_read_well() -> None:
    """The table has a line for each bug, and a check whose numbers were not measured reports that."""
    found = (measure(Task("ours", 1.0, shape), 1, COSTS) for shape in range(len(SHAPES)))
    rows: list[Row] = [row for own, _ in found for row in own]
    assert len(rows) == len(SHAPES)
    assert all(name in WAYS for name in ("hypothesis", "ddmin", "ProbDD", "ours"))
    assert len(shapes_table(rows, ["ours"]).splitlines()) == 2 + len(SHAPES)
    says = [str(one) for one in checks(rows)]
    assert says[0] == "met: rate 1: step-minimal at least 100%: 100.0%"
    assert sum(one.startswith("not measured") for one in says) == 6

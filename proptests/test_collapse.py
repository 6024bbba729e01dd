"""The promise `collapse`: whether a graph is well again after an overload."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphquake.harness.promises.clients.collapse import is_undecided
from graphquake.harness.spec.plan import Plan

from support.made import Made, says, spec_of
from support.planted import planted
from support.toys import in_loop
from support.undisturbed import run_live

BURST_S = 2.0


def overloaded(
    slow_s: float,
    *,
    until_s: float = 99.0,
    ends_s: float = 12.0,
    burst: bool = True,
    **promises: object,
) -> Made:
    """Return a run with a burst at 2 s, which is over at 3 s. Every request takes 0.1 s before it, and `slow_s` until `until_s`."""
    made = Made(spec_of(promises=promises)).phase("heal", 2.1).phase("recover", 2.1)
    made.phase("steady", 3.0).step("burst 5 over 0.00 s", BURST_S, number=0)
    at_s = 0.0
    while at_s < ends_s:
        latency_s = slow_s if BURST_S <= at_s < until_s else 0.1
        made.ask(at_s, at_s + latency_s)
        at_s += 0.1
    for _ in range(5 if burst else 0):
        made.ask(BURST_S, BURST_S + 1.0, group="burst 0")
    return made.phase("drain", ends_s)


@pytest.mark.simulated
def test_a_graph_that_stays_slow_has_collapsed() -> None:
    """The median latency at the end is compared with the largest one before, times `slower`, and 0.1 s more."""
    assert says(overloaded(0.6)) == ("broken", ("collapse / still slow",))
    assert says(overloaded(0.29)) == ("kept", ())
    assert says(overloaded(0.6, collapse={"slower": 6})) == ("kept", ())
    assert says(overloaded(0.6, collapse=False)) == ("kept", ())


@pytest.mark.simulated
def test_a_graph_that_becomes_well_in_its_time_is_kept() -> None:
    """It has `within_s` after the last request of the burst. A run that ends before that proves nothing."""
    assert says(overloaded(0.6, until_s=8.0))[0] == "kept"
    assert says(overloaded(0.6, ends_s=9.9))[0] == "kept"
    assert says(overloaded(0.6, ends_s=10.1))[0] == "broken"
    assert says(overloaded(0.6, ends_s=6.0, collapse={"within_s": 1}))[0] == "broken"


@pytest.mark.simulated
def test_only_bursts_overload_a_graph() -> None:
    """Without a burst, `throughput` judges the latency. If the dead stay dead, the rest may be slower."""
    assert says(overloaded(0.6, burst=False)) == ("kept", ())
    released = overloaded(0.6)
    released.plan = Plan((), heal="release")
    assert says(released) == ("kept", ())


@pytest.mark.simulated
def test_a_run_goes_on_only_while_the_graph_is_slow() -> None:
    """A graph that is fast again costs no time. A slow one is watched until its time is over, and requests in flight count as slow, too."""
    slow, well = overloaded(0.6).history(), overloaded(0.6, until_s=4.0).history()
    assert is_undecided(slow, 9.9)
    assert not is_undecided(slow, 10.1)
    assert not is_undecided(well, 6.1)
    assert not is_undecided(overloaded(0.6, collapse=False).history(), 6.1)
    hanging = overloaded(0.1).history()
    for request in hanging.requests:
        if 3.0 <= request.sent_s <= 6.0 and request.steady:
            request.outcome = None
    assert is_undecided(hanging, 6.1)


@in_loop
async def test_a_graph_that_is_slow_for_ever_breaks_collapse_alone(tmp_path: Path) -> None:
    """The planted bug stays slow after a burst. The run goes on until the graph had its time."""
    bug = planted()["slow_for_ever"]
    run = await run_live(bug.spec, bug.plan, tmp_path)
    assert {one.promise for one in run.verdict.violations} == {"collapse"}

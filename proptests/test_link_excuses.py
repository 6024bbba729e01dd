"""Judged histories with faults of the network: some failures are excused, and others are not. No process runs."""

from __future__ import annotations

import asyncio
from unittest.mock import create_autospec

import pytest

from graphquake.harness.history.events import Undone
from graphquake.harness.history.request import Outcome
from graphquake.harness.processes.network.link_faults import LinkFaults, Links
from graphquake.harness.promises.availability import availability, unimpaired
from graphquake.harness.promises.joined import is_joined
from graphquake.harness.promises.judgement import judge
from graphquake.harness.spec.feasible import feasible
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.spec.plan import parse_plan, parse_step
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import NetworkFault
from graphquake.machines.plans.futile import FutileSteps
from graphquake.machines.plans.judged import judged_share

from support.made import Made, spec_of
from support.toys import in_loop

pytestmark = pytest.mark.simulated
SPACED = load_graph("reference", network="namespaces")


@pytest.mark.parametrize(
    ("apart", "joined"),
    [
        ([], True),
        ([("frontend 0", "decode 0")], True),
        ([("processor 0", "decode 0"), ("processor 0", "decode 1")], False),
        ([("processor 0", "decode 0"), ("prefill 0", "decode 1")], False),
        ([("registry 0", "decode 0")], True),
        ([("registry 0", "decode 0"), ("registry 0", "decode 1")], False),
        ([("registry 0", "frontend 0")], False),
    ],
)
def test_a_path_needs_replicas_that_can_talk(apart: list[tuple[str, str]], joined: bool) -> None:  # noqa: FBT001
    """A path needs one replica of each role, of which no two are separated, and none is separated from the registry."""
    spec = load_graph("reference")
    pairs = [frozenset(map(Replica.parse, pair)) for pair in apart]
    assert is_joined(spec, set(spec.replicas()), pairs) is joined


@pytest.mark.parametrize(("undone_s", "broken"), [(3.0, False), (5.0, True)], ids=["2 s", "4 s"])
def test_the_delay_of_tcp_is_excused(undone_s: float, broken: bool) -> None:  # noqa: FBT001
    """A client that waits for longer than `stall_s` only because TCP tries again late is not a finding. A cut that lasts so long is one."""
    run = Made(SPACED)
    for number in range(20):
        run.ask(0.03 * number)
    text = f"cut decode 0 from processor 0 for {undone_s - 1.0:g} s"
    run.step(text, 1.0)
    run.events.append(Undone(undone_s, 0, parse_step(text), ""))
    run.ask(0.99, undone_s + 1.5)
    assert any(one.promise == "ends" for one in judge(run.history()).violations) is broken


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("delay between processor 0 and decode by 400 ms for 5.00 s", False),
        ("slow between prefill 0 and all to 0.05 MB/s for 5.00 s", False),
        ("lose 20% between decode 0 and all for 5.00 s", True),
        ("cut processor 0 from decode for 5.00 s", False),
        ("cut processor 0 from decode 0 for 5.00 s", True),
    ],
)
def test_a_silence_on_bad_links_needs_another_path(text: str, broken: bool) -> None:  # noqa: FBT001
    """Without a path beside the bad or cut links, a long silence is not a finding. If another replica is on good links, it is one."""
    run = Made(SPACED)
    for number in range(20):
        run.ask(0.03 * number)
    run.step(text, 1.0)
    run.events.append(Undone(6.0, 0, parse_step(text), ""))
    run.ask(1.5, 5.5)
    assert any(one.promise == "ends" for one in judge(run.history()).violations) is broken


def cut_beside_a_death(back_s: float) -> Made:
    """Decode 1 is cut off from 1 s to 5 s, and decode 0 is dead from 1.05 s until it is ready again."""
    run = Made(SPACED)
    for number in range(20):
        run.ask(0.03 * number)
    text = "cut decode 1 from processor 0 for 4.00 s"
    run.step(text, 1.0).step("kill decode 0", 1.05, number=1)
    run.events.append(Undone(5.01, 0, parse_step(text), ""))
    return run.spawn("decode 0", back_s - 0.2, ready_s=back_s)


@pytest.mark.parametrize("back_s", [5.4, 9.0])
def test_the_death_of_the_last_replica_on_good_links_is_an_outage(back_s: float) -> None:
    """With one replica cut off and the other one dead, no path is up, whenever the dead one comes back."""
    history = cut_beside_a_death(back_s).ask(3.4, 3.5, Outcome.ERROR).ask(12.0).history()
    up = availability(history)
    assert [(round(gap.begin_s, 2), round(gap.end_s, 2)) for gap in up.outages] == [(1.05, back_s)]
    assert not any("path left" in str(one) for one in judge(history).signatures)


def test_a_replica_that_served_before_its_death_was_a_path() -> None:
    """A late death beside a long cut takes the path away only from then on."""
    run = Made(SPACED)
    text = "cut decode 1 from processor 0 for 11.00 s"
    run.step(text, 1.0).step("kill decode 0", 11.0, number=1)
    run.events.append(Undone(12.0, 0, parse_step(text), ""))
    run.spawn("decode 0", 11.8, ready_s=12.0).ask(24.9)
    paths = availability(run.history()).paths
    assert paths[0].end_s == pytest.approx(11.0)


def test_bad_links_are_no_paths_for_long_silences_alone() -> None:
    """Bad links stay a path, so the failures on them have their class. Only long silences need a path without them."""
    run = Made(SPACED)
    text = "lose 20% between processor 0 and decode for 4.00 s"
    run.step(text, 1.0)
    run.events.append(Undone(5.0, 0, parse_step(text), ""))
    history = run.ask(12.0).history()
    up = availability(history)
    assert not up.outages
    assert not any(path.holds_at(3.0) for path in unimpaired(history, up).paths)


def test_a_request_need_not_survive_bad_links() -> None:
    """With `must survive`, a request in flight when a link becomes bad may fail. No other link is there."""
    promises = {"error_window": {"in_flight": "must survive"}}
    for text, broken in {
        "lose 20% between frontend 0 and prefill for 4.00 s": False,
        "lose 20% between frontend 0 and decode 0 for 4.00 s": True,
    }.items():
        run = Made(spec_of(promises=promises))
        run.step(text, 1.0)
        run.events.append(Undone(5.0, 0, parse_step(text), ""))
        run.ask(0.9, 1.2, Outcome.ERROR).ask(12.0)
        assert bool(judge(run.history()).violations) is broken


@pytest.mark.parametrize(
    ("lines", "possible"),
    [
        (["cut decode 0 from processor for 4 s", "delay between decode 0 and all by 50 ms for 1 s"], False),
        (["cut decode 0 from processor for 4 s", "wait 4.00 s", "cut decode 0 from all for 1 s"], False),
        (["cut decode 0 from processor for 4 s", "wait 5.00 s", "cut decode 0 from all for 1 s"], True),
        (["cut decode 0 from processor for 4 s", "wait until ready", "cut decode 0 from all for 1 s"], True),
        (["cut decode 0 from processor for 4 s", "cut decode 0 from registry for 1 s"], True),
        (["cut decode 0 from all for 4 s", "kill decode 0", "respawn decode 0", "reset decode 0 from processor"], False),
    ],
)  # fmt: skip
def test_two_faults_of_one_link_are_not_possible_at_once(lines: list[str], possible: bool) -> None:  # noqa: FBT001
    """Neither could be proved alone: what one drops, the other one never meets."""
    assert feasible(SPACED, parse_plan("test", lines)) is possible


def test_what_a_part_of_a_link_misses_says_nothing_about_the_whole() -> None:
    """Without packets between two replicas, a fault of all links of one of them may still meet some."""
    part, whole, other = (
        parse_plan("test", [line])
        for line in (
            "cut registry 0 from frontend for 4.00 s",
            "cut registry 0 from all for 4.00 s",
            "reset registry 0 from frontend for 1.00 s",
        )
    )
    futile = FutileSteps()
    for _ in range(2):
        futile.add(Made(SPACED).step(str(part.steps[0]), 1.0, landed=False).history())
    assert (futile.any_in(part), futile.any_in(other), futile.any_in(whole)) == (True, True, False)
    futile = FutileSteps()
    for _ in range(2):
        futile.add(Made(SPACED).step(str(whole.steps[0]), 1.0, landed=False).history())
    assert futile.any_in(part)


@in_loop
async def test_a_cancelled_order_may_have_begun_a_fault() -> None:
    """The rule may act although its answer was not awaited. So the network counts as disturbed, and its graph is not used again."""

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    links = create_autospec(Links, instance=True)
    links.begin.side_effect = never
    faults = LinkFaults(links)
    fault = NetworkFault("cut", 0.0, ())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await faults.begin(1, fault, [["10.0.0.1", "10.0.0.2"]], 1.0)
    assert faults.is_disturbed


def test_the_model_knows_that_faults_of_the_network_excuse_more() -> None:
    """A link that works badly excuses failures all the time, and a cut of the only link is an outage."""
    kill, cut, lose, apart = (
        judged_share(SPACED, parse_plan("test", [line]))
        for line in (
            "kill decode 0",
            "cut decode 0 from processor for 4.00 s",
            "lose 20% between decode 0 and processor for 4.00 s",
            "cut decode from processor for 4.00 s",
        )
    )
    assert kill > cut > max(lose, apart)

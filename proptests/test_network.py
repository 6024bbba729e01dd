"""Tests of the faults of the network: their texts, their effect on the model and the judge, and live runs with proofs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.run.first_answer import first_answer
from graphquake.harness.spec.feasible import check_plan
from graphquake.harness.spec.graph import GraphSpec, load_graph
from graphquake.harness.spec.plan import Plan, parse_step
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, NetworkFault
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.harness.spec.steps.network.cut import Partition, splits
from graphquake.harness.spec.steps.network.fault import LinkFault
from graphquake.harness.targets.target import Target
from graphquake.machines.frontends.cli_cases import with_network_for
from graphquake.machines.plans.sweep import sweep

from support.made import spec_of
from support.toys import in_loop, toy_spec

# One frontend, one prefill worker and two decode workers.
SPACED = replace(spec_of(), network="namespaces", faults=("cut", "partition"))
FRONT, ONE, TWO = Replica("front", 0), Replica("worker", 0), Replica("worker", 1)

STEPS = (
    "cut worker 0 from front 0 for 6.00 s",
    "cut worker 0 from all for 6.00 s",
    "cut from worker to front for 0.50 s",
    "reset worker 0 from front 0",
    "reset worker from all for 2.00 s",
    "lose 20% between worker 0 and all for 3.00 s",
    "lose 5% from front to worker 1 for 3.00 s",
    "slow between worker 0 and front 0 to 0.5 MB/s for 3.00 s",
    "delay from worker to front by 200 ms for 3.00 s",
    "partition worker 0 from front, worker 1 for 2.00 s",
)


def edges_of(text: str, spec: GraphSpec) -> set[str]:
    """The directions that a step disturbs, in words."""
    step = parse_step(text)
    assert isinstance(step, LinkFault)
    return {f"{source} > {to}" for source, to in step.edges(spec)}


@pytest.mark.simulated
@pytest.mark.parametrize("text", STEPS)
def test_each_text_is_a_step_and_possible(text: str, tmp_path: Path) -> None:
    """Each form is read, printed alike, and possible on a graph with namespaces. Without them, the error says what to do."""
    step = parse_step(text)
    assert str(step) == text
    check_plan(toy_spec(tmp_path, network="namespaces"), Plan((step,)), "plan")
    with pytest.raises(InputError, match='needs network = "namespaces"'):
        check_plan(toy_spec(tmp_path), Plan((step,)), "plan")


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("text", "edges"),
    [
        ("cut worker 0 from front 0 for 1 s", {"worker 0 > front 0", "front 0 > worker 0"}),
        ("cut from worker 0 to front 0 for 1 s", {"worker 0 > front 0"}),
        ("lose 5% from worker to front for 1 s", {"worker 0 > front 0", "worker 1 > front 0"}),
        (
            "partition worker 0 from front, worker 1 for 1 s",
            {"worker 0 > front 0", "front 0 > worker 0", "worker 0 > worker 1", "worker 1 > worker 0"},
        ),
    ],
)  # fmt: skip
def test_edges(text: str, edges: set[str], tmp_path: Path) -> None:
    """A step disturbs the directions between its ends, both of them or one."""
    assert edges_of(text, toy_spec(tmp_path)) == edges


@pytest.mark.simulated
def test_all_means_all_others(tmp_path: Path) -> None:
    """`all` stands for all other replicas of the graph, of the own role too."""
    spec = toy_spec(tmp_path)
    one_way = {"worker 0 > front 0", "worker 0 > worker 1"}
    assert edges_of("cut from worker 0 to all for 1 s", spec) == one_way


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cut worker 2 from all for 1 s", "toy has worker 0 and worker 1"),
        ("cut wroker 0 from all for 1 s", 'did you mean "worker"'),
        ("cut worker 0 from worker 0 for 1 s", "are not two ends of a link"),
        ("cut all from all for 1 s", "are not two ends of a link"),
        ("delay between front and worker by 0 ms for 1 s", "expected ms from 1 to 60000"),
        ("lose 101% between front and worker for 1 s", "expected percent from 1 to 100"),
    ],
)
def test_mistakes_in_links(text: str, message: str, tmp_path: Path) -> None:
    """A link that the graph does not have, or a number out of bounds, is an error that says what would be right."""
    with pytest.raises((InputError, ValueError), match=message):
        check_plan(toy_spec(tmp_path, network="namespaces"), Plan((parse_step(text),)), "plan")


@pytest.mark.simulated
def test_searches_draw_them_only_with_namespaces(tmp_path: Path) -> None:
    """A graph with namespaces draws faults of the network, if its file has no list. Others don't."""
    assert not {"cut", "delay"} & set(load_graph("reference").faults)
    assert {"cut", "reset", "lose", "slow", "delay"} <= set(
        load_graph("reference", network="namespaces").faults
    )


@pytest.mark.simulated
def test_a_replay_gives_the_graph_its_network() -> None:
    """A case with a fault of the network is replayed with namespaces, although the file of its graph does not say so."""
    spec = load_graph("reference")
    cut, kill = (
        Plan((parse_step(text),)) for text in ("cut decode 0 from all for 1 s", "kill decode 0")
    )
    assert with_network_for(spec, cut).network == "namespaces"
    assert with_network_for(spec, kill) is spec


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("line", "simpler"),
    [
        (
            "partition prefill 0 from frontend, decode for 2.00 s",
            [
                "cut prefill 0 from frontend for 2.00 s",
                "cut prefill 0 from decode for 2.00 s",
            ],
        ),
        (
            "partition prefill, decode 1 from frontend, decode 0 for 2.00 s",
            [
                "cut prefill from frontend for 2.00 s",
                "cut prefill from decode 0 for 2.00 s",
                "cut decode 1 from frontend for 2.00 s",
                "cut decode 1 from decode 0 for 2.00 s",
                "partition prefill from frontend, decode 0 for 2.00 s",
                "partition decode 1 from frontend, decode 0 for 2.00 s",
                "partition prefill, decode 1 from frontend for 2.00 s",
                "partition prefill, decode 1 from decode 0 for 2.00 s",
            ],
        ),
        (
            "cut decode 0 from all for 2.00 s",
            [f"cut decode 0 from {role.name} for 2.00 s" for role in SPACED.roles],
        ),
        (
            "lose 5% from frontend to decode for 2.00 s",
            [f"lose 5% from frontend to decode {index} for 2.00 s" for index in (0, 1)],
        ),
        ("reset decode 0 from prefill 0", []),
    ],
)
def test_simpler_faults_of_the_network_have_fewer_links(line: str, simpler: list[str]) -> None:
    """The shrinker tries them in place of a fault that covers them. They cover neither that fault nor each other."""
    step = parse_step(line)
    found = list(step.simpler(SPACED))
    assert list(map(str, found)) == simpler
    assert all(map(step.covers, found))
    assert not any(one.covers(step) for one in found)


@pytest.mark.simulated
def test_partitions_that_are_drawn_are_no_cuts() -> None:
    """A role with several replicas is separated from the others, and then the first replicas from all that is left."""
    found = [Partition(1.0, *groups) for groups in splits(SPACED)]
    assert list(map(str, found)) == [
        "partition decode from frontend, prefill for 1.00 s",
        "partition decode 0 from frontend, prefill, decode 1 for 1.00 s",
    ]
    assert all(step.possible(GraphModel(SPACED)) is None for step in found)
    drawn = {step.called for plan in sweep(SPACED).seldom for step in plan.steps}
    assert {"cut", "partition"} <= drawn


# ------------------------------------------------------------------------------------------------------------ live


class Ends:
    """Begins a fault on a live graph, waits, and ends it."""

    def __init__(self, target: Target) -> None:
        self.target = target

    async def hold(self, text: str, for_s: float, within_s: float = 20.0) -> tuple[Landed, Landed]:
        """Return the landing and the end of a step that lasts for a while."""
        step = parse_step(text)
        assert isinstance(step, LinkFault)
        fault: NetworkFault = step.fault(self.target.spec)
        landed = await self.target.network.begin(1, fault, within_s)
        await asyncio.sleep(for_s)
        return landed, await self.target.network.end(1, fault, 0.0)


@in_loop
async def test_faults_land_with_proofs_and_heal(tmp_path: Path) -> None:
    """Each fault is proved by packets, ended connections or round trips, and healed. Faults of an unused edge do not land."""
    spec = toy_spec(tmp_path, network="namespaces", worker="--children 0")
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        ends = Ends(target)

        async def load() -> None:
            while True:
                await target.views()
                await target._prober.get(f"{target.entries()[0]}/list")

        loading = asyncio.create_task(load())
        # The list of the front opens a connection to each worker.
        landed, ended = await ends.hold("cut worker 0 from front 0 for 1 s", 0.3)
        assert landed.ok
        assert landed.proof.startswith("first packet dropped after ")
        assert ended.ok
        assert ended.proof.startswith("dropped ")
        assert "round trip" in ended.proof

        landed, ended = await ends.hold("delay between worker 0 and front 0 by 100 ms for 1 s", 0.3)
        assert landed.ok
        before, now = _round_trips(landed.proof)
        assert before < 50
        assert 190 <= now < 400
        assert "held back" in ended.proof

        landed, ended = await ends.hold("reset worker 0 from front 0 for 1 s", 0.3)
        assert landed.ok
        assert "RST" in ended.proof
        landed, ended = await ends.hold("lose 50% between worker 0 and front 0 for 1 s", 0.5)
        assert landed.ok
        assert ended.ok
        assert " of " in ended.proof
        landed, ended = await ends.hold(
            "slow between worker 0 and front 0 to 0.01 MB/s for 1 s", 0.3
        )
        assert landed.ok
        assert "held back" in ended.proof

        # The workers do not talk to each other.
        landed, ended = await ends.hold("cut worker 0 from worker 1 for 1 s", 0.0, 0.2)
        assert not landed.ok
        assert landed.proof == "no packet was sent on 2 edges within 0.2 s"
        assert ended.proof == "nothing to undo"
        assert not (
            await target.network.begin(2, _once("reset worker 0 from worker 1", spec), 0.0)
        ).ok
        loading.cancel()
        assert not target.network.is_disturbed
        assert await target.wait_ready(30.0)
        await first_answer(target)


def _once(text: str, spec: GraphSpec) -> NetworkFault:
    step = parse_step(text)
    assert isinstance(step, LinkFault)
    return step.fault(spec)


def _round_trips(proof: str) -> tuple[float, float]:
    """The round trips before and during a fault, in milliseconds."""
    before, _, now = proof.partition("round trip ")[2].partition(" ms before, ")
    return float(before), float(now.split(maxsplit=1)[0])

"""Slots on the nodes of a cluster: who makes which run, what a lost node costs, and what the user is told. The cluster is simulated."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from graphquake.harness.errors import GraphError, InputError
from graphquake.harness.history.history import History
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Kill, Plan
from graphquake.machines.runners.budget import Budget, BudgetSpent
from graphquake.machines.runners.on_ray import node, ray_runner
from graphquake.machines.runners.on_ray.node import NodeSlot, _remove_left
from graphquake.machines.runners.on_ray.parcels import pack_graph
from graphquake.machines.runners.on_ray.places import Failed, NoPlace
from graphquake.machines.runners.on_ray.ray_runner import RayRunner
from graphquake.machines.runners.runner import SEARCH, PendingRun, RunResult

from support.made import spec_of
from support.sim_cluster import SimCluster, judged_wrong

pytestmark = pytest.mark.simulated


@pytest.fixture
def said() -> list[str]:
    """The lines that a user sees."""
    return []


@contextmanager
def runner_on(
    sim: SimCluster, folder: Path, said: list[str], slots: int = 2
) -> Iterator[RayRunner]:
    """A runner on a simulated cluster."""
    with RayRunner(
        sim.spec, folder / "runs", Budget(1000.0), sim, slots=slots, say=said.append
    ) as runner:
        yield runner


def plan(number: int = 0) -> Plan:
    """A plan that kills a worker."""
    return Plan((Kill("decode", number),))


def all_results(runner: RayRunner, count: int) -> list[RunResult]:
    """Begin runs of different plans, then take their results."""
    begun = [runner.start(replace(plan(), stay_s=float(one)), "confirm") for one in range(count)]
    return [runner.result(one) for one in begun]


def test_runs_go_to_all_nodes_and_come_back_in_order(tmp_path: Path, said: list[str]) -> None:
    """Each slot gets runs. Results belong to the plans that were asked for, and their folders are where local ones are."""
    sim = SimCluster(spec_of(), {"a": 1, "b": 1})
    with runner_on(sim, tmp_path, said) as runner:
        results = all_results(runner, 6)
    assert [one.plan.stay_s for one in results] == [0, 1, 2, 3, 4, 5]
    assert {one.history.host.node for one in results} == {"a", "b"}
    for number, one in enumerate(results, start=1):
        assert one.folder == tmp_path / "runs" / f"{number:04}"
        assert (one.folder / "logs" / "decode-0.log").read_text() == "hello"
    assert all(slot.is_left for slot in sim.slots)
    assert said == ["slot 1 of 2: node a", "slot 2 of 2: node b"]


def test_the_driver_judges(tmp_path: Path, said: list[str]) -> None:
    """The verdict follows from the history, with the graph file of the driver. So a saved run can be judged again here."""
    sim = SimCluster(spec_of(), {"a": 1})
    with runner_on(sim, tmp_path, said, slots=1) as runner:
        (result,) = all_results(runner, 1)
    assert result.verdict.kind == "kept"
    assert result.folder is not None
    saved = History.load(result.folder)
    assert (saved.spec.path, saved.host.node) == (sim.spec.path, "a")
    assert '"kept"' in (result.folder / "verdict.json").read_text()


def test_a_replay_takes_its_bounds_along(tmp_path: Path, said: list[str]) -> None:
    """The order of a replay has the bounds and the load of the case. So has the history that comes back."""
    sim = SimCluster(spec_of(), {"a": 1})
    own = replace(sim.spec, lease_s=9.0)
    with runner_on(sim, tmp_path, said, slots=1) as runner:
        results = [runner.result(runner.start(plan(), "replay", spec=one)) for one in (own, None)]
    assert [order.run.spec for _, order in sim.asked] == [own, None]
    assert [one.history.spec.lease_s for one in results] == [9.0, sim.spec.lease_s]


def test_a_search_run_that_waited_for_too_long_is_given_up(tmp_path: Path, said: list[str]) -> None:
    """It waits for a slot until the time of the budget is over. A run that confirms goes first, and is made."""
    sim = SimCluster(spec_of(), {"a": 1}, held={"a"})
    with runner_on(sim, tmp_path, said, slots=1) as runner:
        first = runner.start(plan(), "shrink")
        wait_until(lambda: len(sim.asked) == 1)
        waiting, confirms = runner.start(plan(1), SEARCH), runner.start(plan(1), "confirm")
        runner.budget.total_s = 0.0
        sim.held.clear()
        runner.cancel(first)
        assert runner.result(confirms).verdict.kind == "kept"
        with pytest.raises(BudgetSpent):
            runner.result(waiting)
    assert [order.run.why for _, order in sim.asked] == ["shrink", "confirm"]


def test_threads_take_turns_more_often_while_a_runner_is_open(
    tmp_path: Path, said: list[str]
) -> None:
    """The interpreter's switch interval is short then, and as before at the end."""
    before_s = sys.getswitchinterval()
    with runner_on(SimCluster(spec_of(), {"a": 1}), tmp_path, said):
        assert sys.getswitchinterval() < before_s
    assert sys.getswitchinterval() == before_s


def test_a_lost_node_loses_no_run(tmp_path: Path, said: list[str]) -> None:
    """The run of a node that dies is noted as invalid, and made again elsewhere. The budget counts both."""
    sim = SimCluster(spec_of(), {"a": 1, "b": 2}, breaks={("a", 2): "it was killed"})
    with runner_on(sim, tmp_path, said) as runner:
        results = all_results(runner, 4)
        assert runner.budget.begun_runs == 5
    assert [one.verdict.kind for one in results] == ["kept"] * 4
    spoiled = [verdict.causes for one in results for verdict, _ in one.disturbed]
    assert spoiled == [("the slot on node a was lost: it was killed",)]
    assert any("the run begins again" in line for line in said)
    assert {one.history.host.node for one in results} == {"b"}


def test_a_node_that_is_cut_off_is_lost(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that does not answer counts as lost, although nobody says that it died."""
    monkeypatch.setattr(ray_runner, "LOST_AFTER_S", 0.05)
    monkeypatch.setattr(ray_runner, "HEARTBEAT_EVERY_S", 0.01)
    sim = SimCluster(spec_of(), {"a": 2, "b": 1}, held={"a"})
    with runner_on(sim, tmp_path, said, slots=1) as runner:
        begun = runner.start(plan(), "confirm")
        sim.cut.add("a")
        sim.down.add("a")
        result = runner.result(begun)
    assert result.history.host.node == "b"
    ((verdict, _),) = result.disturbed
    assert verdict.kind == "invalid"


def test_a_lost_run_takes_the_first_slot_that_is_free(tmp_path: Path, said: list[str]) -> None:
    """It does not wait for a new slot: Ray may look for room on a dead node for a minute."""
    sim = SimCluster(spec_of(), {"a": 1, "b": 2}, breaks={("a", 2): "it was killed"}, opens_max=2)
    with runner_on(sim, tmp_path, said) as runner:
        results = all_results(runner, 4)
    assert {one.history.host.node for one in results} == {"b"}
    assert sum(len(one.disturbed) for one in results) == 1


def test_one_slot_less_if_no_node_has_room(tmp_path: Path, said: list[str]) -> None:
    """If nothing can take the place of a lost slot, the others go on."""
    sim = SimCluster(spec_of(), {"a": 1, "b": 1}, breaks={("a", 1): "it was killed"})
    with runner_on(sim, tmp_path, said) as runner:
        results = all_results(runner, 5)
        assert runner.slots == 1
    assert {one.history.host.node for one in results} == {"b"}
    assert "slots: 1 (no node has room for one more slot)" in said


@pytest.mark.parametrize("lost", [2, 3])
def test_a_slot_that_is_lost_while_it_opens_is_tried_again(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """The first slot may be lost twice. After the third time, the search ends with the reason."""
    monkeypatch.setattr(ray_runner, "OPEN_AGAIN_AFTER_S", 0.01)
    sim = SimCluster(spec_of(), {"a": 1}, lost_early=lost)
    if lost == 3:
        with (
            pytest.raises(NoPlace, match="a node could not open a slot: its process died"),
            runner_on(sim, tmp_path, said, slots=1),
        ):
            pass
        return
    with runner_on(sim, tmp_path, said, slots=1) as runner:
        assert runner.run(plan(), "confirm").verdict.kind == "kept"
    assert said[:2] == ["a slot was lost while it opened (its process died); it is tried again"] * 2


def test_the_search_ends_without_any_slot(tmp_path: Path, said: list[str]) -> None:
    """If the last node is lost, the run raises an error, and does not wait for ever."""
    sim = SimCluster(spec_of(), {"a": 1}, breaks={("a", 1): "it was killed"})
    with (
        runner_on(sim, tmp_path, said, slots=1) as runner,
        pytest.raises(NoPlace, match="no node has room"),
    ):
        runner.run(plan(), "confirm")


def test_a_run_that_is_not_needed_is_stopped_on_its_node(tmp_path: Path, said: list[str]) -> None:
    """The slot of a cancelled run serves the next one."""
    sim = SimCluster(spec_of(), {"a": 1}, held={"a"})
    with runner_on(sim, tmp_path, said, slots=1) as runner:
        begun = runner.start(plan(), "shrink")
        wait_until(lambda: bool(sim.asked))
        runner.cancel(begun)
        wait_until(lambda: sim.slots[0].stopped == 1)
        sim.held.clear()
        assert runner.run(plan(), "shrink").verdict.kind == "kept"
    assert len(sim.slots) == 1


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for the thread of the runner."""
    for _ in range(500):
        if holds():
            return
        asyncio.run(asyncio.sleep(0.01))
    raise AssertionError("it did not happen within 5 s")


@pytest.mark.parametrize("of_graph", [True, False])
def test_an_error_of_a_node_names_files_here(
    tmp_path: Path, said: list[str], *, of_graph: bool
) -> None:
    """The error of a graph or of the user's code arrives as the same kind of error, and names the folder of the run here."""
    text = "decode 0 did not start; see /node/runs/0001/logs/decode-0.log"
    sim = SimCluster(spec_of(), {"a": 1}, fails=Failed(of_graph, text, "/node/runs/0001"))
    with (
        runner_on(sim, tmp_path, said, slots=1) as runner,
        pytest.raises(GraphError if of_graph else InputError) as caught,
    ):
        runner.run(plan(), "confirm")
    log = tmp_path / "runs" / "0001" / "logs" / "decode-0.log"
    assert str(log) in str(caught.value)
    assert log.read_text() == "hello"


def test_runs_that_were_disturbed_on_a_node_count(tmp_path: Path, said: list[str]) -> None:
    """A node repeats a run that other work there disturbed. Budget and log see each of these runs."""
    sim = SimCluster(spec_of(), {"a": 1}, disturbed=((judged_wrong(), 2.0),))
    with runner_on(sim, tmp_path, said, slots=1) as runner:
        assert len(runner.run(plan(), "confirm").disturbed) == 1
        assert runner.budget.begun_runs == 2


# ------------------------------------------------------------------------------------------------------------- on a node


@pytest.fixture
def slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeSlot:
    """A slot as it is on a node, with its folder in a temporary one."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "made.toml").write_text("x")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spec = replace(spec_of(), path=tmp_path / "here" / "made.toml", python="/driver/python")
    return NodeSlot(spec, pack_graph(spec.path), "/driver/python")


def test_a_slot_without_heartbeats_ends_itself(
    slot: NodeSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the driver is gone, the process of the slot ends, and so does its graph."""

    def ends(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", ends)
    monkeypatch.setattr(node, "LEASE_S", 0.05)
    monkeypatch.setattr(node, "_LOOK_S", 0.01)
    asyncio.run(slot.heartbeat())
    begun_s = time.monotonic()
    with pytest.raises(SystemExit):
        slot._end_without_heartbeat()
    assert time.monotonic() - begun_s >= 0.04


def test_a_slot_has_the_graph_file_and_its_own_python(slot: NodeSlot) -> None:
    """The files lie in the folder of the slot. The driver's Python is replaced by that of the node."""
    assert slot._spec.path.read_text() == "x"
    assert slot._spec.python == sys.executable


def test_what_a_killed_slot_has_left_is_removed(slot: NodeSlot, tmp_path: Path) -> None:
    """The next slot on the node removes folders of processes that have ended, and no others."""
    left = tmp_path / "graphquake-slot-999999999-x"
    left.mkdir()
    _remove_left()
    assert not left.exists()
    assert slot._home.exists()


def test_a_node_that_can_do_less_is_an_error(
    slot: NodeSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault that the search draws must be possible on every node."""

    def without(spec: GraphSpec) -> GraphSpec:
        return replace(spec, lacks={"stall": "no ptrace"})

    monkeypatch.setattr(node, "on_this_machine", without)
    with pytest.raises(InputError, match=r"made.toml: node n1 can't do .*: stall \(no ptrace\)"):
        asyncio.run(slot.open("n1"))


def test_pending_runs_have_a_folder(tmp_path: Path, said: list[str]) -> None:
    """A run in progress is known by the folder that it will have here."""
    sim = SimCluster(spec_of(), {"a": 1})
    with runner_on(sim, tmp_path, said, slots=1) as runner:
        begun: PendingRun = runner.start(plan(), "confirm")
        assert begun.folder == tmp_path / "runs" / "0001"
        runner.result(begun)

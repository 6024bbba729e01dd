"""One suite for every target: launched processes, a cluster with and without the agent, and targets with planted mistakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphquake.harness.history.events import Died
from graphquake.harness.processes.network.client import network_lacks
from graphquake.harness.run.conformance import CHECKS, Result, conform
from graphquake.harness.run.open_target import OpenTarget, on_this_machine, open_target
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import Landed, Leak

from support.cluster.cluster import can_run_pods
from support.cluster.containers import cgroup_root
from support.cluster.networks import PodNetworks
from support.cluster.web import GRAPH, web_cluster, web_spec
from support.fake_target import FakeTarget, FakeTargets, fake_spec
from support.real_cluster.choice import is_real
from support.toys import toy_spec

pytestmark = pytest.mark.roomy

ZERO = Replica("web", 0)
WORKER = Replica("worker", 0)


def folder(path: Path) -> Path:
    """A folder for a graph."""
    path.mkdir()
    return path


def answers(results: list[Result]) -> dict[str, str]:
    """The answer of each check. A broken one shows what is wrong."""
    return {one.check: one.said if one.answer == "broken" else one.answer for one in results}


def all_kept(*left_out: str) -> dict[str, str]:
    """Every check is kept, but some are left out."""
    return {name: "left out" if name in left_out else "kept" for name, _, _ in CHECKS}


OF_SQUEEZES = ("squeeze cpu", "squeeze memory", "not squeezed")
OF_PODS = ("delete", "scale", "scale up", "rollout", "cordon")
OF_LINKS = ("cut", "reset", "lose", "slow", "delay", "cut missed")


@pytest.mark.parametrize("network", ["host", "namespaces"])
def test_launched_processes(tmp_path: Path, network: str) -> None:
    """The supervisor keeps the protocol, with and without network namespaces. It has no pods, so nothing can be deleted."""
    spec = on_this_machine(toy_spec(tmp_path, network=network))
    results = asyncio.run(conform(spec, open_target, folder(tmp_path / "graph"), WORKER))
    links = OF_LINKS if spec.network == "host" else ()
    assert answers(results) == all_kept(*OF_PODS, *links)


@pytest.mark.skipif(
    not can_run_pods() or cgroup_root() is None,
    reason="pods need PID namespaces and control groups, and so root, on this machine",
)
def test_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the agent, a cluster keeps the whole protocol. Without it, kills, stalls, squeezes and the network are left out."""
    monkeypatch.setattr("support.cluster.kubelet.BACK_OFF_S", 1.0)
    networks = None if network_lacks() else PodNetworks()
    links = OF_LINKS if networks is None else ()

    async def body() -> None:
        async with web_cluster(tmp_path, networks, INTERRUPTS="yes", GOSSIPS="yes"):
            plain = web_spec(tmp_path)
            results = await conform(plain, open_target, folder(tmp_path / "plain"), ZERO)
            assert answers(results) == all_kept(
                "stall", "kill", "dead", "cordon", "scale up", *OF_LINKS, *OF_SQUEEZES
            )
            more = 'ready_s = 30\nagent = "python"\ncordon = true'
            text = GRAPH.replace("ready_s = 30", more)
            text = text.replace("replicas = 2", "replicas = 2\nscale_to = 3")
            if networks is not None:
                text = f'network = "namespaces"\n{text}'
            with_agent = web_spec(tmp_path, text)
            results = await conform(with_agent, open_target, folder(tmp_path / "agent"), ZERO)
            assert answers(results) == all_kept(*links)

    asyncio.run(body())


@pytest.mark.skipif(
    not can_run_pods() or bool(network_lacks()) or is_real(),
    reason="pods need PID and network namespaces, and so root, and a network plugin of the tests",
)
def test_a_cluster_with_policies(tmp_path: Path) -> None:
    """Without the agent, NetworkPolicies can cut, and nothing else that the agent can."""

    async def body() -> None:
        async with web_cluster(tmp_path, PodNetworks(), INTERRUPTS="yes"):
            spec = web_spec(tmp_path, f'network = "policies"\n{GRAPH}')
            results = await conform(spec, open_target, folder(tmp_path / "graph"), ZERO)
        left = {*OF_LINKS} - {"cut", "cut missed"}
        assert answers(results) == all_kept(
            "stall", "kill", "dead", "cordon", "scale up", *left, *OF_SQUEEZES
        )

    asyncio.run(body())


def with_flaw(plant: Callable[[FakeTarget], None]) -> OpenTarget:
    """Opens a fake target with a planted mistake."""

    @asynccontextmanager
    async def opener(spec: GraphSpec, folder: Path) -> AsyncIterator[FakeTarget]:
        async with FakeTargets()(spec, folder) as target:
            plant(target)
            yield target

    return opener


def kills_nothing(target: FakeTarget) -> None:
    """A kill says that it has landed, and does nothing."""
    target.kill = _lands  # type: ignore[assignment,method-assign] # a planted mistake


async def _lands(*_: Any) -> Landed:
    return Landed(ok=True, proof="nothing was done", at_s=asyncio.get_running_loop().time())


def no_proof(target: FakeTarget) -> None:
    """A fault has no proof."""
    target._landed = lambda proof: Landed(True, proof[:0], 0.0)  # type: ignore[method-assign] # a planted mistake


def unaimed(target: FakeTarget) -> None:
    """A death does not say that a step caused it."""
    kill = target.kill

    async def killed(*asked: Any) -> Landed:
        landed = await kill(*asked)
        last = target.log[-1]
        assert isinstance(last, Died)
        target.log[-1] = replace(last, aimed=False)
        return landed

    target.kill = killed  # type: ignore[assignment,method-assign] # a planted mistake


def same_life(target: FakeTarget) -> None:
    """A new life has the number of the last one."""
    start = target.start

    def started(replica: Replica) -> None:
        target.lives[replica] -= 1
        start(replica)

    target.start = started  # type: ignore[method-assign] # a planted mistake


def leaking(target: FakeTarget) -> None:
    """Something is always left."""

    async def leaks() -> list[Leak]:
        return [Leak("process", "pid 1 is left")]

    target.leaks = leaks  # type: ignore[method-assign] # a planted mistake


def kept(_: FakeTarget) -> None:
    """Plant nothing."""


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("plant", "check", "said"),
    [
        (kills_nothing, "kill", "no Died of worker 0"),
        (no_proof, "kill", "landed without a proof"),
        (unaimed, "kill", "Died is not aimed"),
        (same_life, "kill", "the new life has no new incarnation"),
        (leaking, "leaks", "leak: pid 1 is left"),
        (kept, "next run", "the log has the present lives only"),
    ],
)
def test_mistakes_are_found(
    tmp_path: Path,
    plant: Callable[[FakeTarget], None],
    check: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each planted mistake breaks the check that is about it. The checks after it are not tried."""
    monkeypatch.setattr("graphquake.harness.run.conformance.NOTICED_WITHIN_S", 0.1)
    lacks = dict.fromkeys(("stall", "interrupt", "squeeze cpu", "squeeze memory"), "no processes")
    spec = replace(fake_spec(tmp_path), lacks=lacks)
    spec = replace(spec, roles=tuple(replace(one, stop_s=0.1) for one in spec.roles))
    last = asyncio.run(conform(spec, with_flaw(plant), folder(tmp_path / "graph"), WORKER))[-1]
    assert (last.check, last.answer) == (check, "kept" if plant is kept else "broken")
    assert last.said.startswith(said)

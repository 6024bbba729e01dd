"""Cuts by NetworkPolicies: they cut what they name and nothing else, prove it, miss where nobody enforces them, and leave nothing."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import StepDone, Undone
from graphquake.harness.kubernetes.api.objects import NETWORK_POLICIES, PODS
from graphquake.harness.kubernetes.changes.policies import POD
from graphquake.harness.kubernetes.changes.records import LABEL, NOTE
from graphquake.harness.kubernetes.node.agents import RUN
from graphquake.harness.kubernetes.target import KubernetesTarget
from graphquake.harness.processes.network.client import network_lacks
from graphquake.harness.run.open_target import sweep_leftovers
from graphquake.harness.spec.plan import parse_plan
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import NetworkFault

from support.cluster.cluster import Cluster, can_run_pods
from support.cluster.networks import PodNetworks
from support.cluster.rights import allowed, needed
from support.cluster.web import GRAPH, web_cluster, web_spec
from support.real_cluster.choice import is_real
from support.undisturbed import run_live

needs_pods = pytest.mark.skipif(
    not can_run_pods() or bool(network_lacks()) or is_real(),
    reason="pods need PID and network namespaces, and so root, and a network plugin of the tests",
)
POLICIES = f'network = "policies"\n{GRAPH}'
ZERO, ONE = Replica("web", 0), Replica("web", 1)
THERE, BACK = (ZERO, ONE), (ONE, ZERO)


def leftovers(cluster: Cluster) -> list[str]:
    """Everything of a run that is in the cluster."""
    pods = cluster.store.all(PODS)
    labels = [name for one in pods for name in one["metadata"]["labels"] if name in {POD, LABEL}]
    notes = [name for one in pods for name in one["metadata"].get("annotations", {}) if name == NOTE]  # fmt: skip
    return [*(one["metadata"]["name"] for one in cluster.store.all(NETWORK_POLICIES)), *labels, *notes]  # fmt: skip


def dials(cluster: Cluster, target: KubernetesTarget, source: Replica, to: Replica) -> bool:
    """Try a new connection between two pods with another program than the target, and by their namespaces."""
    (inside, _), (there, _) = (target._roster.running(one) for one in (source, to))  # type: ignore[misc] # both run
    pid = cluster.kubelet.pods[inside.uid].containers[0].pid
    dial = "import socket, sys; socket.create_connection((sys.argv[1], 8000), 0.5)"
    address = there.item["status"]["podIP"]
    argv = ["nsenter", "-t", str(pid), "-n", sys.executable, "-I", "-S", "-c", dial, address]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


@asynccontextmanager
async def opened(
    folder: Path, *, enforces: bool = True
) -> AsyncIterator[tuple[Cluster, KubernetesTarget]]:
    """A graph that may be cut by policies."""
    networks = PodNetworks(enforces=enforces)
    async with web_cluster(folder, networks, GOSSIPS="yes") as cluster:
        spec = web_spec(folder, POLICIES)
        async with KubernetesTarget.attach(spec, folder / "run") as target:
            yield cluster, target
        assert leftovers(cluster) == []


@needs_pods
@pytest.mark.roomy
def test_a_cut_acts_and_heals(tmp_path: Path) -> None:
    """A cut prevents new connections both ways, and one in a direction only those of its first end. Overlapping cuts end one by one."""

    async def body() -> None:
        async with opened(tmp_path) as (cluster, target):
            network = target.network
            both = NetworkFault("cut", 0.0, (THERE, BACK))
            landed = await network.begin(1, both, 1.0)
            assert landed.ok, landed.proof
            assert "port 8000 worked before, and no longer works" in landed.proof
            assert network.is_disturbed
            assert [dials(cluster, target, *edge) for edge in (THERE, BACK)] == [False, False]
            (policy,) = cluster.store.all(NETWORK_POLICIES)
            assert set(policy["metadata"]["labels"]) == {RUN}

            one_way = NetworkFault("cut", 0.0, (THERE,))
            assert (await network.begin(2, one_way, 1.0)).ok
            ended = await network.end(1, both, 0.0)
            assert ended.ok
            assert "works again" in ended.proof
            assert [dials(cluster, target, *edge) for edge in (THERE, BACK)] == [False, True]
            assert (await network.begin(3, NetworkFault("cut", 0.0, (BACK,)), 1.0)).ok
            assert (await network.end(2, one_way, 0.0)).ok
            assert [dials(cluster, target, *edge) for edge in (THERE, BACK)] == [True, False]
            needed_here = {
                one
                for one in needed(cluster.api.requests)
                if one[1] in {"networkpolicies", "pods", "pods/exec"}
            }
            assert needed_here <= allowed()
            # The end of the graph removes the rest.

    asyncio.run(body())


@needs_pods
@pytest.mark.roomy
def test_whole_runs_with_a_cut(tmp_path: Path) -> None:
    """The run of a cut is judged, and has its proofs. Where the network plugin ignores policies, the cut misses and the run is invalid."""

    async def body(folder: Path, enforces: bool) -> tuple[str, StepDone, list[Undone]]:  # noqa: FBT001 # a condition
        folder.mkdir()
        async with web_cluster(folder, PodNetworks(enforces=enforces)) as cluster:
            spec = web_spec(folder, POLICIES)
            run = await run_live(spec, parse_plan("p", ["cut web 0 from web 1 for 1 s"]), folder / "run")  # fmt: skip
            assert leftovers(cluster) == []
        (done,) = run.history.of(StepDone)
        assert done.landed == enforces
        return run.verdict.kind, done, list(run.history.of(Undone))

    verdict, done, undone = asyncio.run(body(tmp_path / "one", True))
    assert verdict == "kept"
    assert "no longer works" in done.proof
    assert "works again" in undone[0].proof
    verdict, done, _ = asyncio.run(body(tmp_path / "two", False))
    assert verdict == "invalid"
    assert "The network plugin does not enforce it" in done.proof


HARNESS = """
import asyncio, sys
from pathlib import Path
from graphquake.harness.kubernetes.target import KubernetesTarget
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import NetworkFault
async def body():
    spec, (zero, one) = on_this_machine(load_graph(sys.argv[1])), (Replica("web", 0), Replica("web", 1))
    async with KubernetesTarget.attach(spec, Path(sys.argv[2])) as target:
        landed = await target.network.begin(1, NetworkFault("cut", 0.0, ((zero, one), (one, zero))), 1.0)
        print("cut" if landed.ok else landed.proof, flush=True)
        await asyncio.sleep(60)
asyncio.run(body())
"""


@needs_pods
@pytest.mark.roomy
@pytest.mark.parametrize("how", ["sweep", "start", "interrupt"])
def test_what_a_killed_run_leaves(tmp_path: Path, how: str) -> None:
    """A killed run leaves its policy. A sweep and the next start remove it, but not one of a run that goes on. Ctrl-C heals at once."""

    async def body() -> None:
        async with web_cluster(tmp_path, PodNetworks()) as cluster:
            spec = web_spec(tmp_path, POLICIES)
            argv = [sys.executable, "-c", HARNESS, str(spec.path), str(tmp_path / "killed")]
            pipe = asyncio.subprocess.PIPE
            killed = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe)
            assert killed.stdout is not None
            assert (await killed.stdout.readline()).decode().strip() == "cut"
            assert await sweep_leftovers(spec) == []
            assert len(leftovers(cluster)) == 7  # a policy, and two labels and a record at each pod
            killed.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
            await killed.communicate()
            assert bool(leftovers(cluster)) == (how != "interrupt")
            if how == "sweep":
                swept = await sweep_leftovers(spec)
                assert [one.split()[0] for one in swept] == ["NetworkPolicy", "label", "label"]
            async with KubernetesTarget.attach(spec, tmp_path / "run") as target:
                assert leftovers(cluster) == []
                assert dials(cluster, target, *THERE)

    asyncio.run(body())


@needs_pods
@pytest.mark.roomy
def test_policies_of_others(tmp_path: Path) -> None:
    """A pod that another policy selects can't be cut off: one more policy would open what it closes. That is said at the start."""

    async def body() -> None:
        async with web_cluster(tmp_path, PodNetworks()) as cluster:
            spec = web_spec(tmp_path, POLICIES)
            theirs = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}
            meta = {"name": "theirs", "namespace": "lab"}
            async with KubernetesTarget.attach(spec, tmp_path / "run") as target:
                cluster.store.create(NETWORK_POLICIES, {"metadata": meta, "spec": theirs})
                landed = await target.network.begin(1, NetworkFault("cut", 0.0, (THERE,)), 1.0)
                assert not landed.ok
                assert landed.proof.startswith("NetworkPolicy theirs selects pod web-")
            with pytest.raises(InputError, match='network is "policies", but NetworkPolicy theirs'):
                async with KubernetesTarget.attach(spec, tmp_path / "again"):
                    pass
            assert [one["metadata"]["name"] for one in cluster.store.all(NETWORK_POLICIES)] == ["theirs"]  # fmt: skip

    asyncio.run(body())

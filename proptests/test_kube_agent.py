"""Kills and stalls by the agent on the node: their proofs, what happens if its connection is lost, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from graphquake.harness.errors import GraphError, InputError
from graphquake.harness.history.events import Died, Spawned
from graphquake.harness.kubernetes.api.objects import PODS, Json, labels_of, name_of
from graphquake.harness.kubernetes.changes.records import Owner
from graphquake.harness.kubernetes.node import agent
from graphquake.harness.kubernetes.node.agents import RUN, _is_orphan, manifest, sweep
from graphquake.harness.kubernetes.target import KubernetesTarget
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.spec.feasible import drawn_at
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.scope import PROCESS, TREE, Child
from graphquake.machines.frontends.cli import main

from support.cluster.cluster import Cluster, can_run_pods
from support.cluster.containers import cgroup_root
from support.cluster.web import GRAPH, web_cluster, web_spec
from support.until import until

pytestmark = [
    pytest.mark.skipif(
        not can_run_pods() or cgroup_root() is None,
        reason="pods need PID namespaces and control groups, and so root, on this machine",
    ),
    pytest.mark.roomy,
]
TEXT = GRAPH.replace("ready_s = 30", 'ready_s = 30\nagent = "python"').replace(
    "replicas = 2", 'replicas = 2\nchildren = { helper = "sleep" }'
)
ZERO = Replica("web", 0)


@asynccontextmanager
async def attached(tmp_path: Path) -> AsyncIterator[tuple[Cluster, KubernetesTarget]]:
    """A cluster, and a target with agents."""
    async with (
        web_cluster(tmp_path) as cluster,
        KubernetesTarget.attach(web_spec(tmp_path, TEXT), tmp_path / "run") as target,
    ):
        yield cluster, target


def agents(cluster: Cluster) -> list[Json]:
    """The pods of agents."""
    return [one for one in cluster.store.all(PODS) if RUN in labels_of(one)]


def pid_of(cluster: Cluster, target: KubernetesTarget) -> int:
    """The main process of web 0, as the node sees it."""
    there = target._roster.running(ZERO)
    assert there is not None
    return cluster.kubelet.pods[there[0].uid].containers[0].pid


def state(pid: int) -> str:
    """The state of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def answers(target: KubernetesTarget) -> bool:
    """True if web 0 answers within half a second."""
    limit = aiohttp.ClientTimeout(total=0.5)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit) as http,
            http.get(target.entries()[0]) as one,
        ):
            return one.status == 200
    except (TimeoutError, aiohttp.ClientConnectionError):
        return False


def test_kills_and_stalls(tmp_path: Path) -> None:
    """A kill ends the main process from the node, and a stall stops it: both from outside of the container. Afterwards no agent is left."""

    async def body() -> None:
        async with attached(tmp_path) as (cluster, target):
            pid = pid_of(cluster, target)
            assert len(agents(cluster)) == 1
            landed = await target.kill(ZERO, Child("helper"))
            assert not landed.ok
            assert "0 child processes called sleep" in landed.proof
            assert target.ready(ZERO)

            landed = await target.stall(ZERO, PROCESS)
            assert landed.ok
            assert state(pid) == "T"
            assert landed.proof == f"pid {pid} of the node stopped"
            assert not target.ready(ZERO)
            assert not await answers(target)
            landed = await target.resume(ZERO)
            assert landed.ok
            assert state(pid) != "T"
            assert target.ready(ZERO)
            await until(lambda: target._roster.running(ZERO) and target.entries())
            assert await target.wait_ready(30)

            landed = await target.kill(ZERO, TREE)
            assert landed.ok
            assert f"pid {pid} of the node gone" in landed.proof
            assert not Path(f"/proc/{pid}").exists()
            (died,) = [e for e in target.log if isinstance(e, Died)]
            assert (died.replica, died.status, died.aimed) == (ZERO, -9, True)
            assert await target.wait_ready(30)
            lives = [e.incarnation for e in target.log if isinstance(e, Spawned) and e.replica == ZERO]  # fmt: skip
            assert lives == [0, 1]
        assert agents(cluster) == []

    asyncio.run(body())


def test_a_lost_connection_undoes_a_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the API server is away, the agent lets every process go on, and the run ends with an error that names the node."""
    monkeypatch.setattr("graphquake.harness.kubernetes.node.agents.REMOVED_WITHIN_S", 0.1)

    async def body() -> None:
        async with attached(tmp_path) as (cluster, target):
            pid = pid_of(cluster, target)
            target.begin_run()
            assert (await target.stall(ZERO, TREE)).ok
            assert state(pid) == "T"
            cluster.api.cut()
            begun_s = time.monotonic()
            await until(lambda: state(pid) != "T")
            assert time.monotonic() - begun_s < 3.5
            await asyncio.sleep(60)

    with pytest.raises(GraphError, match="node node-0: the connection to"):
        asyncio.run(body())


def test_silence_undoes_a_stall(tmp_path: Path) -> None:
    """An agent that hears nothing for 3 s lets every process go on, and ends, although its connection is still open."""

    async def body() -> None:
        async with web_cluster(tmp_path) as cluster:
            await until(lambda: len(cluster.kubelet.pods) == 2)
            container = next(iter(cluster.kubelet.pods.values())).containers[0]
            await until(lambda: container.ready)
            with subprocess.Popen(
                [sys.executable, agent.__file__, "serve", str(tmp_path / "touched")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            ) as process:  # fmt: skip
                assert process.stdin is not None
                assert process.stdout is not None
                order = {"id": 1, "do": "stall", "container": container.id}
                asked_s = time.monotonic()
                process.stdin.write(json.dumps(order).encode() + b"\n")
                process.stdin.flush()
                said = json.loads(await asyncio.to_thread(process.stdout.readline))
                assert said["ok"]
                answered_s = time.monotonic()
                await until(lambda: state(container.pid) != "T")
                assert asked_s + 3 <= time.monotonic() < answered_s + 4
                assert await asyncio.to_thread(process.wait, 30) == 0

    asyncio.run(body())


def test_agents_that_ended_are_swept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`graphquake sweep` removes agents that have ended. Those that run belong to a run that goes on, and stay. So do pods of others."""

    async def body() -> None:
        async with web_cluster(tmp_path) as cluster, cluster.client() as client:
            made = [manifest("lab", "node-0", "python", "old") for _ in range(2)]
            made[0]["spec"]["containers"][0]["command"] = ["true"]
            for one in made:
                await client.create(PODS, one)
            await until(lambda: any(one.get("status", {}).get("phase") == "Succeeded" for one in agents(cluster)))  # fmt: skip
            others = [name_of(one) for one in cluster.store.all(PODS) if one not in agents(cluster)]
            ended, runs = map(name_of, made)
            assert await asyncio.to_thread(main, ["sweep", str(web_spec(tmp_path).path)]) == 0
            assert capsys.readouterr().out == f"removed Pod {ended}\n"
            assert await sweep(client, "lab") == []
            assert [name_of(one) for one in agents(cluster)] == [runs]
            assert {*others} <= {name_of(one) for one in cluster.store.all(PODS)}

    asyncio.run(body())


@pytest.mark.simulated
def test_sweep_needs_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    """A launched graph leaves nothing in a cluster, and the error says who ends what it leaves."""
    assert main(["sweep", "reference"]) == 2
    assert "reference.toml: has no table [kubernetes]; the next start" in capsys.readouterr().err


@pytest.mark.simulated
def test_what_an_agent_adds(tmp_path: Path) -> None:
    """With an agent, a search draws kills and stalls of replicas and of their children, too."""
    assert set(drawn_at(on_this_machine(web_spec(tmp_path, TEXT)), "web")) == {
        "delete", "terminate", "interrupt", "kill", "stall", "stall part", "scale", "rollout",
    }  # fmt: skip
    with pytest.raises(InputError, match=r"kubernetes\.agent"):
        web_spec(tmp_path, TEXT.replace('agent = "python"', "agent = 3"))


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("owner", "is_orphan"),
    [
        (Owner.here(), False),
        (replace(Owner.here(), start_s=1.0), True),
        (Owner("elsewhere", 1, 1.0), False),
    ],
)
def test_orphans_are_known(owner: Owner, is_orphan: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 # a column of the table
    """An agent is removed while it runs if its run was killed on this machine. Nobody knows whether one of another machine goes on."""
    monkeypatch.setattr(Owner, "here", lambda: owner)
    assert _is_orphan(manifest("lab", "node-0", "python", "ab12")) is is_orphan

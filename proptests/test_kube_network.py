"""Faults of the network between pods: they act in the pods, end with the agent however it ends, and never hit a node."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.node import agent
from graphquake.harness.kubernetes.node.agents import Agents, Answer
from graphquake.harness.kubernetes.node.bundle import bundle
from graphquake.harness.kubernetes.node.pod_faults import PodFaults, address_of
from graphquake.harness.kubernetes.pods import Pod, read_pod
from graphquake.harness.kubernetes.target import KubernetesTarget
from graphquake.harness.processes.network.client import network_lacks
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.spec.faults import LINK_FAULTS
from graphquake.harness.spec.feasible import check_plan, drawn_at
from graphquake.harness.spec.plan import Plan, parse_step
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import NetworkFault

from support.cluster.cluster import can_run_pods
from support.cluster.containers import cgroup_root
from support.cluster.kubelet import PodRun
from support.cluster.networks import PodNetworks
from support.cluster.web import GRAPH, web_cluster, web_spec
from support.until import until

needs_pods = pytest.mark.skipif(
    not can_run_pods() or cgroup_root() is None or bool(network_lacks()),
    reason="pods need PID and network namespaces and control groups, and so root, on this machine",
)
WITH_AGENT = GRAPH.replace("ready_s = 30", 'ready_s = 30\nagent = "python"')
SPACED = f'network = "namespaces"\n{WITH_AGENT}'
ZERO, ONE = Replica("web", 0), Replica("web", 1)
BOTH_WAYS = ((ZERO, ONE), (ONE, ZERO))


class Direct:
    """An agent that this test talks to without a cluster.

    Attributes:
        asked_s: the time just before the last order was given, in `time.monotonic()` seconds.
    """

    def __init__(self, folder: Path) -> None:
        pipe = subprocess.PIPE
        argv = [sys.executable, agent.__file__, "serve", str(folder / "touched")]
        self.process = subprocess.Popen(argv, stdin=pipe, stdout=pipe)
        self.asked_s = 0.0

    async def ask(self, run: PodRun, do: str, **asked: Any) -> Any:
        """Give an order about the network of a pod."""
        about = {"pod": run.address, "container": run.containers[0].id, "address": run.address}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.asked_s = time.monotonic()
        self.process.stdin.write(json.dumps({"id": 1, "do": do, **about, **asked}).encode() + b"\n")
        self.process.stdin.flush()
        said = json.loads(await asyncio.to_thread(self.process.stdout.readline))
        assert said["ok"], said
        return said["result"]

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate()


async def cut(one: PodRun, other: PodRun, folder: Path) -> Direct:
    """Let an agent cut a pod from another one, and see that no packet passes."""
    direct = Direct(folder)
    assert await direct.ask(one, "ping", to=other.address, within_s=20) >= 0
    await direct.ask(one, "begin", key=1, kind="cut", value=0, to=[other.address])
    assert await direct.ask(one, "ping", to=other.address, within_s=0.2) == -1
    return direct


async def whole_within(one: PodRun, other: PodRun, within_s: float, folder: Path) -> None:
    """Wait until packets pass again, and see that nothing is left in the pod."""
    pid = one.containers[0].pid
    until_s = time.monotonic() + within_s

    def left(*argv: str) -> str:
        inside = ["nsenter", "-t", str(pid), "-n", *argv]
        return subprocess.run(inside, capture_output=True, text=True, check=True).stdout

    read = "print(open('/proc/net/dev').read())"
    while "wire" in left(sys.executable, "-I", "-S", "-c", read):
        assert time.monotonic() < until_s
        await asyncio.sleep(0.02)
    direct = Direct(folder)
    assert await direct.ask(one, "ping", to=other.address, within_s=20) >= 0
    direct.end()


@needs_pods
@pytest.mark.roomy
@pytest.mark.parametrize("how", ["killed", "silent"])
def test_a_cut_ends_with_its_agent(tmp_path: Path, how: str) -> None:
    """If the agent is killed, or hears nothing for 3 s, the pod's packets take their old way, and the pod has no device of it."""

    async def body() -> None:
        async with web_cluster(tmp_path, PodNetworks()) as cluster:
            runs = cluster.kubelet.pods
            await until(lambda: len(runs) == 2 and all(run.containers[0].ready for run in runs.values()))  # fmt: skip
            one, other = runs.values()
            direct = await cut(one, other, tmp_path)
            if how == "killed":
                direct.end()
                await whole_within(one, other, 2, tmp_path)
            else:
                answered_s = time.monotonic()
                await asyncio.to_thread(direct.process.wait, 30)
                assert direct.asked_s + 3 <= time.monotonic() < answered_s + 5
                direct.end()
                await whole_within(one, other, 0.5, tmp_path)

    asyncio.run(body())


@needs_pods
@pytest.mark.roomy
def test_a_node_is_never_hit(tmp_path: Path) -> None:
    """Pods with the network of their node are refused when the graph is opened, and the error says why."""

    async def body() -> None:
        spec = web_spec(tmp_path, SPACED)
        async with web_cluster(tmp_path), KubernetesTarget.attach(spec, tmp_path / "run"):
            pytest.fail("it was opened")

    with pytest.raises(InputError, match=r'network is "namespaces", but web 0: .* uses the network of its node'):  # fmt: skip
        asyncio.run(body())


# -------------------------------------------------------------------------------------------------- without a cluster


@pytest.mark.simulated
def test_what_the_agent_and_namespaces_add(tmp_path: Path) -> None:
    """Faults of the network are drawn with an agent and namespaces. Without an agent they are left out, and a plan says what is missing."""
    spaced = on_this_machine(web_spec(tmp_path, SPACED))
    assert {*LINK_FAULTS} <= {*drawn_at(spaced, "web")}
    plan = Plan((parse_step("cut web 0 from web 1 for 1 s"),))
    check_plan(spaced, plan, "plan")
    with pytest.raises(InputError, match='needs network = "namespaces"'):
        check_plan(on_this_machine(web_spec(tmp_path, WITH_AGENT)), plan, "plan")
    without = on_this_machine(web_spec(tmp_path, f'network = "namespaces"\n{GRAPH}'))
    assert without.network == "host"
    with pytest.raises(InputError, match=r"needs a process on the node: write agent"):
        check_plan(without, plan, "plan")


@pytest.mark.simulated
def test_the_agent_brings_all_its_modules() -> None:
    """The text of the agent runs with the standard library alone, and fits into an environment variable."""
    assert len(bundle()) < 1 << 17
    argv = [sys.executable, "-I", "-S", "-c", bundle(), "serve", "/dev/null"]
    done = subprocess.run(argv, input=b"", capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@dataclass
class Told:
    """Agents that remember what they were asked, and answer as a network that works. `fails` names a pod that refuses."""

    asked: list[tuple[Any, ...]]
    fails: str = ""
    closed: str = ""

    async def at(self, node: str) -> Told:
        """The one agent."""
        assert node == "n"
        return self

    async def ask(self, do: str, **asked: Any) -> Answer:
        """Answer an order."""
        if asked["pod"] == self.fails and do != "ping":
            return Answer(ok=False, proof="no such device", result=None)
        self.asked.append((do, asked["address"], asked.get("to", "")))
        counts = dict.fromkeys(("packets", "octets", "dropped", "dropped_octets", "resets"), 2)
        results: dict[str, Any] = {"begin": 0, "met": 0.01, "end": counts, "destroy": 1}
        took_s = -1.0 if asked.get("to") == self.closed else 0.001
        return Answer(ok=True, proof="", result=results.get(do, took_s))


def pod(number: int) -> Pod:
    """A pod of the web role."""
    status = {"podIPs": [{"ip": "fd00::1"}, {"ip": f"10.0.0.{number}"}]}
    meta = {"name": f"web-{number}", "namespace": "lab", "uid": f"u{number}"}
    return read_pod({"metadata": meta, "spec": {"nodeName": "n", "containers": [{"name": "c"}]}, "status": status})  # fmt: skip


def faults(told: Told, pods: dict[Replica, Pod]) -> PodFaults:
    """Faults between these pods."""
    return PodFaults(cast("Agents", told), pods.get)


CUT = NetworkFault("cut", 0.0, BOTH_WAYS)


@pytest.mark.simulated
def test_each_direction_is_cut_at_its_sender() -> None:
    """Each sender drops its packets. The proof adds up what both have counted. An edge whose pod is gone is not measured."""

    async def body() -> None:
        told, pods = Told([]), {ZERO: pod(1), ONE: pod(2)}
        one = faults(told, pods)
        assert (await one.begin(1, CUT, 1.0)).ok
        assert one.is_disturbed
        begun = [asked for asked in told.asked if asked[0] == "begin"]
        assert begun == [("begin", "10.0.0.1", ["10.0.0.2"]), ("begin", "10.0.0.2", ["10.0.0.1"])]
        pods[ONE] = replace(pods[ONE], uid="another")
        told.asked.clear()
        landed = await one.end(1, CUT, 0.0)
        assert (landed.ok, landed.proof) == (True, "dropped 4 packets, 4 bytes")
        assert [asked[0] for asked in told.asked] == ["end", "end"]
        assert not one.is_disturbed

    asyncio.run(body())


@pytest.mark.simulated
def test_a_half_begun_fault_is_undone() -> None:
    """If one pod refuses a fault, it ends at the others. It has not landed, and the reason names the pod."""

    async def body() -> None:
        told = Told([], fails="u2")
        landed = await faults(told, {ZERO: pod(1), ONE: pod(2)}).begin(1, CUT, 1.0)
        assert (landed.ok, landed.proof) == (False, "pod web-2: no such device")
        assert [asked[0] for asked in told.asked][-2:] == ["begin", "end"]

    asyncio.run(body())


@pytest.mark.simulated
def test_round_trips_that_a_policy_forbids_prove_nothing() -> None:
    """An edge without an answer before the fault is not measured after it, so its end is no error. The other edge is measured."""

    async def body() -> None:
        told = Told([], closed="10.0.0.2")
        one = faults(told, {ZERO: pod(1), ONE: pod(2)})
        assert (await one.begin(1, CUT, 1.0)).ok
        landed = await one.end(1, CUT, 0.0)
        assert landed.ok
        assert "round trip 1.00 ms again" in landed.proof

    asyncio.run(body())


@pytest.mark.simulated
def test_a_link_needs_two_pods() -> None:
    """A fault between a pod and a replica that does not run has not landed. Resets try both ends, as one may know a Service only."""

    async def body() -> None:
        told = Told([])
        landed = await faults(told, {ZERO: pod(1)}).begin(1, CUT, 1.0)
        assert (landed.ok, told.asked) == (False, [])
        reset = NetworkFault("reset", 0.0, BOTH_WAYS)
        landed = await faults(told, {ZERO: pod(1), ONE: pod(2)}).begin(1, reset, 0.0)
        assert (landed.ok, landed.proof) == (True, "2 connections ended")
        assert {asked[1] for asked in told.asked} == {"10.0.0.1", "10.0.0.2"}

    asyncio.run(body())


@pytest.mark.simulated
def test_an_agent_that_is_lost_is_named() -> None:
    """If the agent can't be reached, the fault has not landed, and the reason says why. Only addresses of IPv4 can be disturbed."""

    async def body() -> None:
        told = Told([])

        async def lost(node: str) -> Told:
            raise ApiError(f"no agent at {node}")

        told.at = lost  # type: ignore[method-assign] # a lost agent
        landed = await faults(told, {ZERO: pod(1), ONE: pod(2)}).begin(1, CUT, 1.0)
        assert (landed.ok, landed.proof) == (False, "no agent at n")

    asyncio.run(body())
    only_six = read_pod({**pod(1).item, "status": {"podIP": "fd00::1"}})
    assert address_of(only_six) is None

"""Policies without a cluster: what they close, what proves a cut, and which steps a graph can have with them."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquake.harness.errors import InputError
from graphquake.harness.kubernetes.api.client import Client, Listing
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import Json, Resource
from graphquake.harness.kubernetes.api.shell import Ran
from graphquake.harness.kubernetes.changes.new_connections import SHELL, connect
from graphquake.harness.kubernetes.changes.policies import POD, Edge, policy_spec, selects, shares
from graphquake.harness.kubernetes.changes.policy_faults import PolicyFaults
from graphquake.harness.kubernetes.pods import Pod, read_pod
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.spec.feasible import check_plan, drawn_at
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.spec.plan import Plan, parse_step
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import NetworkFault

from support.cluster.policies import closed_edges, matches
from support.cluster.web import GRAPH, web_spec

pytestmark = pytest.mark.simulated
POLICIES = f'network = "policies"\n{GRAPH}'
ZERO, ONE = Replica("web", 0), Replica("web", 1)
THERE = (ZERO, ONE)
PODS_MAX = 5
UIDS = [f"u{number}" for number in range(PODS_MAX)]
EDGES = st.sets(st.tuples(st.sampled_from(UIDS), st.sampled_from(UIDS)).filter(lambda edge: edge[0] != edge[1]))  # fmt: skip


def address(uid: str) -> str:
    """The address of a pod."""
    return f"10.0.0.{uid[1:]}"


def closed_by(faults: list[set[Edge]], *, blocks: bool) -> set[Edge]:
    """What a network plugin closes for these faults."""
    union: dict[str, set[Edge]] = {}
    for edges in faults:
        for pod, part in shares(edges).items():
            union.setdefault(pod, set()).update(part)
    known = {uid: [address(uid)] for uid in UIDS}
    policies = [
        {"metadata": {"namespace": "lab", "name": uid}, "spec": policy_spec(uid, edges, known)}
        for uid, edges in union.items()
    ]
    marked = {pod for edges in faults for edge in edges for pod in edge}
    pods: list[Json] = [
        {
            "metadata": {"name": uid, "namespace": "lab", "labels": {POD: uid} if uid in marked else {}},
            "status": {"podIP": address(uid)},
        }
        for uid in UIDS
    ]  # fmt: skip
    return closed_edges(policies, pods, [{"metadata": {"name": "lab"}}], blocks=blocks)


@given(faults=st.lists(EDGES, max_size=3), blocks=st.booleans())
def test_exactly_the_edges_are_closed(faults: list[set[Edge]], *, blocks: bool) -> None:
    """Policies close the edges of all faults and no other ones, whether or not a plugin applies blocks of addresses to pods."""
    wanted = {(address(source), address(to)) for edges in faults for source, to in edges}
    assert closed_by(faults, blocks=blocks) == wanted


def test_one_policy_is_enough_for_one_pod() -> None:
    """A pod that is cut off from all others gets the one policy."""
    edges = {edge for uid in UIDS[1:] for edge in ((UIDS[0], uid), (uid, UIDS[0]))}
    assert shares(edges) == {UIDS[0]: edges}


REQUIREMENT = st.fixed_dictionaries(
    {
        "key": st.sampled_from("ab"),
        "operator": st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
        "values": st.lists(st.sampled_from("xy"), min_size=1),
    }
)
LABELS = st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"))


@given(wanted=LABELS, asked=st.lists(REQUIREMENT, max_size=2), labels=LABELS)
def test_selectors(wanted: dict[str, str], asked: list[Json], labels: dict[str, str]) -> None:
    """Selectors of other policies are read as the network plugin of the tests reads them."""
    selector = {"matchLabels": wanted, "matchExpressions": asked}
    assert selects(selector, labels) == matches(selector, labels)


@pytest.mark.parametrize("tools", [("bash", "timeout"), ("nc",), ()])
def test_a_shell_tries_connections(tmp_path: Path, tools: tuple[str, ...]) -> None:
    """A shell tries one port after the other until one is accepted. Without its tools it ends with status 127."""
    if not all(map(shutil.which, tools)):
        pytest.skip(f"this machine has no {' and '.join(tools)}")
    for name in tools:
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    sh = str(shutil.which("sh"))
    with socket.create_server(("127.0.0.1", 0)) as listens, socket.socket() as shut:
        shut.bind(("127.0.0.1", 0))
        ports = [str(one.getsockname()[1]) for one in (shut, listens)]
        argv = [sh, "-c", SHELL, "sh", "127.0.0.1", "1", *ports]
        done = subprocess.run(argv, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)  # fmt: skip
    said = [f"{ports[0]} refused", f"{ports[1]} connected"]
    assert (done.returncode, done.stdout.splitlines()) == ((0, said) if tools else (127, []))


def test_what_policies_can_do(tmp_path: Path) -> None:
    """Cuts and partitions are drawn, other faults of the network are not. A plan that asks for more is an error that says how."""
    spec = web_spec(tmp_path, POLICIES)
    assert {"cut", "partition"} <= {*drawn_at(spec, "web")}
    assert not {"reset", "lose", "slow", "delay"} & {*drawn_at(spec, "web")}
    for step in ("cut web 0 from web 1 for 1 s", "partition web 0 from web 1 for 1 s"):
        check_plan(spec, Plan((parse_step(step),)), "plan")
    lose = Plan((parse_step("lose 5% between web 0 and web 1 for 1 s"),))
    with pytest.raises(InputError, match='a NetworkPolicy can only cut: write agent = "IMAGE"'):
        check_plan(spec, lose, "plan")
    plain = web_spec(tmp_path)
    with pytest.raises(InputError, match=r'write agent .*, or network = "policies" into'):
        check_plan(plain, Plan((parse_step("cut web 0 from web 1 for 1 s"),)), "plan")
    with_agent = POLICIES.replace("[kubernetes]", '[kubernetes]\nagent = "python"')
    both = on_this_machine(replace(web_spec(tmp_path, with_agent), lacks={}))
    assert (both.network, "lose" in both.lacks, "kill" in both.lacks) == ("policies", True, False)


def test_what_policies_need(tmp_path: Path) -> None:
    """Policies need a cluster, and a port at each role: a new connection to it is the proof."""
    ported = "ports = { http = 8000 }\n"
    text = POLICIES.replace(ported, "").replace("{address.http}", "127.0.0.1:1")
    with pytest.raises(InputError, match=r'roles.web.ports: is missing: with network = "policies"'):
        web_spec(tmp_path, text)
    with pytest.raises(InputError, match='network: found "policies", which is for a graph with'):
        load_graph("reference", network="policies")


def pod_of(number: int, **spec: object) -> Pod:
    """A pod of the web role."""
    meta = {"name": f"web-{number}", "namespace": "lab", "uid": f"u{number}"}
    status = {"podIP": f"10.0.0.{number}"}
    return read_pod({"metadata": meta, "spec": {"containers": [{"name": "c"}], **spec}, "status": status})  # fmt: skip


class Quiet:
    """An API server that keeps nothing and has nothing, and knows which requests came."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def list_all(self, *_: object, **__: object) -> Listing:
        """Nothing is there."""
        return Listing([], "1")

    async def create(self, resource: Resource, item: Json, **__: object) -> Json:
        """Pretend."""
        self.asked.append(f"create {resource.kind}")
        return item

    async def patch(self, resource: Resource, *_: object, **__: object) -> None:
        """Pretend."""
        self.asked.append(f"patch {resource.kind}")

    async def delete(self, resource: Resource, *_: object, **__: object) -> bool:
        """Pretend."""
        self.asked.append(f"delete {resource.kind}")
        return True


@pytest.mark.parametrize(
    ("during", "inside", "lands"),
    [("silent", "silent", True), ("refused", "connected", True), ("refused", "refused", False), ("connected", "connected", False)],
)  # fmt: skip
def test_what_proves_a_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, during: str, inside: str, *, lands: bool
) -> None:
    """Silence proves a cut. A refusal proves it only if the port answers within its own pod. A cut that misses is undone at once."""
    module = "graphquake.harness.kubernetes.changes.policy_faults"
    monkeypatch.setattr(f"{module}.LANDS_WITHIN_S", 0.05)
    pods, quiet = {ZERO: pod_of(0), ONE: pod_of(1)}, Quiet()

    async def answered(_: object, pod: Pod, address: str, ports: list[int]) -> tuple[int, str]:
        is_inside = address == pod.item["status"]["podIP"]
        acts = "create NetworkPolicy" in quiet.asked and "delete NetworkPolicy" not in quiet.asked
        return ports[0], (inside if is_inside else during) if acts else "connected"

    monkeypatch.setattr(f"{module}.connect", answered)

    async def body() -> None:
        faults = PolicyFaults(web_spec(tmp_path, POLICIES), cast("Client", quiet), "lab", pods.get)
        fault = NetworkFault("cut", 0.0, (THERE,))
        landed = await faults.begin(1, fault, 1.0)
        assert (landed.ok, faults.is_disturbed) == (lands, lands)
        assert (await faults.end(1, fault, 0.0)).ok
        made = ["patch Pod", "patch Pod", "create NetworkPolicy"]
        assert quiet.asked == [*made, "delete NetworkPolicy", "patch Pod", "patch Pod"]
        pods[ZERO] = pod_of(2, hostNetwork=True)
        landed = await faults.begin(2, fault, 1.0)
        assert (landed.ok, "uses the network of its node" in landed.proof) == (False, True)
        assert not (await faults.begin(3, NetworkFault("lose", 0.5, (THERE,)), 1.0)).ok

    asyncio.run(body())


def test_a_pod_without_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python is tried first, then a shell. A pod with neither is named."""
    tried: list[str] = []

    async def absent(*asked: object) -> Ran:
        tried.append(cast("list[str]", asked[4])[0])
        return Ran(-1, "", "executable file not found in $PATH")

    monkeypatch.setattr("graphquake.harness.kubernetes.changes.new_connections.run", absent)
    with pytest.raises(ApiError, match="pod web-0 has neither python3, nor sh"):
        asyncio.run(connect(cast("Client", Quiet()), pod_of(0), "10.0.0.1", [80]))
    assert tried == ["python3", "sh"]

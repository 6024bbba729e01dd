"""Slots on a Ray cluster: the option, its errors, what travels to the nodes, and what a user is told about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.history.host import Host
from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.spec.plan import Kill, Plan
from graphquake.machines.cases.case import Case, Observed
from graphquake.machines.cases.replay import _differs
from graphquake.machines.cases.wording import reproduced_text
from graphquake.machines.findings.sightings import Sightings
from graphquake.machines.frontends.options import on_ray_of
from graphquake.machines.reports.summary import GraphSummary
from graphquake.machines.runners.on_ray import cluster, parcels
from graphquake.machines.runners.on_ray.cluster import (
    check_reachable,
    check_room,
    connect,
    name_of,
    room_for,
    why_lost,
)
from graphquake.machines.runners.on_ray.option import OnRay, is_on_ray, read_on_ray
from graphquake.machines.runners.on_ray.parcels import pack, pack_graph, unpack
from graphquake.machines.runners.run_log import RunLog

from support.cluster.web import web_spec
from support.made import Made, spec_of

pytestmark = pytest.mark.simulated

PLAN, OTHER = (Plan((Kill("decode", number),)) for number in (0, 1))


# ---------------------------------------------------------------------------------------------------- what a user writes


def test_the_option_has_two_forms() -> None:
    """A number of slots alone asks for a local cluster, and an address follows an @."""
    assert read_on_ray("ray:8", 1.0) == OnRay(8)
    assert read_on_ray("ray:2@10.0.0.7:6379", 4.0) == OnRay(2, "10.0.0.7:6379", 4.0)
    assert [is_on_ray(one) for one in ("ray:8", "ray", "8", "auto")] == [True, True, False, False]


@pytest.mark.parametrize("text", ["ray", "ray:", "ray:0", "ray:8@", "ray:x", "ray:5000", "ray://a"])
def test_another_form_is_an_error(text: str) -> None:
    """The error names what was found and both forms."""
    with pytest.raises(ValueError, match="expected ray:K or ray:K@ADDRESS"):
        read_on_ray(text, 1.0)


def test_processes_do_not_share_a_cluster() -> None:
    """Each process of pytest-xdist would reserve all slots for itself."""
    wanted = {"--chaos-slots": "ray:2", "--chaos-slot-cores": 1.0, "--chaos-share-gpus": False}
    config: Any = SimpleNamespace(getoption=wanted.get, option=SimpleNamespace(tx=None))
    assert on_ray_of(config) == OnRay(2)
    config.option.tx = ["popen", "popen"]
    with pytest.raises(InputError, match="pytest -n: found with --chaos-slots ray:2, expected one"):
        on_ray_of(config)


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing extra is one line."""

    def missing(_: str) -> None:
        raise ImportError

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(InputError, match=r"Ray is not installed; pip install 'graphquake\[ray\]'"):
        connect(OnRay(2))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "no Ray cluster answers there: Connection refused"),
        ("ray://127.0.0.1:1", "no Ray cluster answers there: Connection refused"),
        ("here", "expected an address such as 10.0.0.7:6379"),
    ],
)
def test_an_address_without_a_cluster_is_an_error(address: str, said: str) -> None:
    """It shows within seconds, before Ray is asked."""
    with pytest.raises(InputError, match=f"--chaos-slots ray:2@{address}: {said}"):
        check_reachable(OnRay(2, address))
    check_reachable(OnRay(2))


def test_too_few_nodes_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what the slots need and what the nodes have. Roles with `cpu_ok` need no GPU if there is none."""
    resources = [{"CPU": 1.0}, {"CPU": 4.0, "GPU": 1.0}]
    ray = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": one} for one in resources])
    monkeypatch.setattr(cluster, "connect", lambda _: ray)
    roles = {"frontend": {"command": "f", "entry": "http://h"}, "decode": {"command": "d", "gpus": 1, "cpu_ok": True}}  # fmt: skip
    spec = spec_of(roles=roles, serves="frontend and decode")
    said = "room for 1 slot of 1 core and 1 GPU each; its nodes have 1 core, 0 GPUs; 4 cores, 1 GPU"
    with pytest.raises(InputError, match=said):
        check_room(spec, OnRay(2))
    assert check_room(spec, OnRay(1)) == 1
    del resources[1]
    assert check_room(spec, OnRay(1)) == 0


def test_a_graph_in_a_cluster_needs_no_nodes(tmp_path: Path) -> None:
    """Its pods lie where Kubernetes has put them, so slots on Ray are refused."""
    with pytest.raises(InputError, match=r"has a table \[kubernetes\], expected a graph that is"):
        check_room(web_spec(tmp_path), OnRay(1))


def test_the_reason_of_a_loss_has_no_ids() -> None:
    """Losses of one kind are counted together. Subclasses of Ray's errors count as their base classes."""
    died = type("ActorDiedError", (Exception,), {})
    reasons = [why_lost(one) for one in (died("actor 1f"), type("Other", (died,), {})("2e"))]
    assert reasons == ["its process died"] * 2
    assert why_lost(ValueError("0x7f")) == "Ray reports ValueError"


def test_slots_must_fit_on_single_nodes() -> None:
    """Cores and GPUs of different nodes do not add up to a slot."""
    nodes = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 3.0, "GPU": 8.0}, {"memory": 1.0}]
    assert room_for(nodes, 4.0, 0) == 2
    assert room_for(nodes, 1.0, 2) == 4
    assert room_for(nodes, 4.0, 4) == 0


def test_nodes_have_different_names() -> None:
    """The address and the id follow only where the host name is not enough."""

    def node(node_id: str, host: str, address: str) -> dict[str, Any]:
        return {"NodeID": node_id, "Alive": True, "NodeManagerHostname": host, "NodeManagerAddress": address}  # fmt: skip

    nodes = [node("aaaaaaaa", "x", "10.0.0.1"), node("b", "y", "10.0.0.2")]
    assert name_of("aaaaaaaa", nodes) == "x"
    nodes.append(node("c", "x", "10.0.0.3"))
    assert name_of("aaaaaaaa", nodes) == "x/10.0.0.1"
    nodes.append(node("d", "x", "10.0.0.1"))
    assert name_of("aaaaaaaa", nodes) == "x/10.0.0.1/aaaaaa"


def test_the_folder_of_a_graph_file_travels(tmp_path: Path) -> None:
    """Python files and folders travel. Hidden folders and environments stay behind."""
    for name in ("my.toml", "oracle.py", "lib/promise.py", ".git/x", "venv/y", "a/__pycache__/z"):
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text(name)
    unpack(pack_graph(tmp_path / "here" / "my.toml"), tmp_path / "there")
    arrived = sorted(str(one.relative_to(tmp_path / "there")) for one in (tmp_path / "there").rglob("*.*"))  # fmt: skip
    assert arrived == ["lib/promise.py", "my.toml", "oracle.py"]
    unpack(pack(tmp_path / "here"), tmp_path / "all")
    assert (tmp_path / "all" / ".git" / "x").read_text() == ".git/x"


def test_a_folder_that_is_too_large_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model beside the graph file does not travel to each slot."""
    (tmp_path / "my.toml").write_text("x" * 3_000_000)
    monkeypatch.setattr(parcels, "PARCEL_MAX_BYTES", 2 << 20)
    with pytest.raises(InputError, match=r"found 3 MiB beside my.toml, expected at most 2 MiB"):
        pack_graph(tmp_path / "my.toml")


# --------------------------------------------------------------------------------------------------------- what is told

CASE = Case(
    id="abc123",
    title="error_window broken by kill decode 0",
    status="open",
    graph={"name": "made", "shape": "decode 2", "digest": "0c5a49"},
    signature=Signature("error_window", "HTTP 503", "path left"),
    plan=PLAN,
    seen="3 of 4 failed",
    observed=(Observed("2026-01-01", {}, "2 cores, no GPU", 3, 3),),
)


def test_the_evidence_names_nodes_and_hardware() -> None:
    """A case keeps on which nodes the runs of its minimal plan were made. Runs of other plans do not count."""
    seen = Sightings(Signature("error_window", "HTTP 503", "path left"))
    for name, cores, one in (("b", 8, PLAN), ("a", 4, PLAN), ("a", 4, PLAN), ("c", 2, OTHER)):  # fmt: skip
        history = replace(Made(plan=one).history(), host=Host(cores=cores, gpus=2, node=name))
        seen.note_facts(history, broken=True)
    text = "a (4 cores, 2 GPUs), b (8 cores, 2 GPUs)"
    assert seen.hosts(PLAN) == text
    observed = Observed("2026-01-02", {}, text, 3, 3)
    assert reproduced_text(replace(CASE, observed=(observed,))).endswith(f"; on {text}")
    assert "; on" not in reproduced_text(CASE)


def test_runs_here_name_no_node() -> None:
    """A search on one machine has the evidence that it always had."""
    seen = Sightings(Signature("error_window", "HTTP 503", "path left"))
    seen.note_facts(Made(plan=PLAN).history(), broken=True)
    assert not seen.hosts(PLAN)


@pytest.mark.parametrize(
    ("host", "differs"),
    [(Host(cores=4), ()), (Host(cores=14), ("a (4 cores, no GPU), b (8 cores, no GPU) -> 14 cores, no GPU",))],
)  # fmt: skip
def test_a_replay_on_such_hardware_does_not_differ(host: Host, differs: tuple[str, ...]) -> None:
    """A replay compares its machine with the hardware of the nodes."""
    observed = Observed("2026-01-02", {}, "a (4 cores, no GPU), b (8 cores, no GPU)", 3, 3)
    assert _differs(replace(CASE, observed=(observed,)), host) == differs


def test_the_journal_and_the_summary_name_nodes(tmp_path: Path) -> None:
    """Each run has its node. A search that goes on counts the runs of both parts."""
    journal = tmp_path / "journal.jsonl"
    log = RunLog(journal)
    for node_of_run in ("a", "b", "a", ""):
        log.run(PLAN, "search", Verdict("kept"), 1.0, "", node=node_of_run)
    log.close()
    again = RunLog(journal, goes_on=True)
    again.close()
    assert dict(again.nodes) == {"a": 2, "b": 1}
    summary = GraphSummary("made", 1, nodes=dict(log.nodes))
    assert "nodes       2 on a, 1 on b" in summary.text()
    assert summary.to_json()["nodes"] == {"a": 2, "b": 1}


def test_a_host_keeps_its_node() -> None:
    """The folder of a run names the node. Folders of runs that were made here are as they always were."""
    host = Host(cores=4, node="a")
    assert Host.from_json(host.to_json()) == host
    assert host.facts()[0] == "node a"
    assert "node" not in Host(cores=4).to_json()

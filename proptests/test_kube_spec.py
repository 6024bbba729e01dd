"""The table `[kubernetes]` of a graph file, the keys of its roles, and the steps that act on objects of a cluster."""

from __future__ import annotations

import re
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.kubernetes.changes.records import NOTE, Owner, Record, record_of
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.spec.feasible import check_plan, drawn_at, left_out
from graphquake.harness.spec.graph import load_graph, read_graph
from graphquake.harness.spec.plan import parse_plan, parse_step
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.cluster.cordon import Cordon
from graphquake.harness.spec.steps.cluster.delete import Delete
from graphquake.harness.spec.steps.cluster.rollout import Rollout
from graphquake.harness.spec.steps.cluster.scale import Scale
from graphquake.harness.spec.steps.cluster.scale_up import ScaleUp
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.harness.spec.steps.table import KINDS
from graphquake.machines.plans.sweep import sweep
from graphquake.machines.sessions.checks import check_alone

from support.cluster.selectors import has_labels
from support.cluster.web import GRAPH, web_spec
from support.made import spec_of
from support.pages import DOCS

pytestmark = pytest.mark.simulated


def test_a_graph_file_of_a_cluster(tmp_path: Path) -> None:
    """Roles have a selector, ports and probes. What dies comes back by itself."""
    spec = web_spec(tmp_path)
    assert spec.cluster is not None
    assert (spec.cluster.namespace, spec.cluster.refused) == ("lab", ("prod",))
    pods = spec.role("web").pods
    assert pods is not None
    assert (pods.select, pods.container, pods.ports) == ("app=web", "", {"http": 8000})
    assert spec.restart == "always"


def test_the_roles_of_a_dynamo_graph_deployment(tmp_path: Path) -> None:
    """With `deployment`, the labels of Dynamo's operator select the pods, and its usual ports have names."""
    text = GRAPH.replace("ready_s = 30", 'deployment = "chat"').replace('select = "app=web"', 'component = "Frontend"')  # fmt: skip
    pods = web_spec(tmp_path, text).role("web").pods
    assert pods is not None
    assert pods.select == (
        "nvidia.com/dynamo-graph-deployment-name=chat,nvidia.com/dynamo-component=Frontend"
    )
    assert pods.ports == {"http": 8000, "system": 9090}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('namespace = "lab"', "", "kubernetes.namespace: is missing"),
        ('namespace = "lab"', 'namespace = "La b"', 'kubernetes.namespace: found "La b", expected a name of Kubernetes'),
        ("ready_s = 30", "ready = 10", 'kubernetes.ready: is not a known key; did you mean "ready_s"'),
        ('select = "app=web"', "", "roles.web.select: is missing: a label selector"),
        ("replicas = 2", 'command = "sleep 1"', "roles.web.command: is for roles that are launched here"),
        ("http = 8000", "http = 80000", "roles.web.ports.http: found 80000"),
        ("http = 8000", "web = 8000", 'roles.web.entry: names the port "http", which "ports" does not give'),
        ("[kubernetes]", 'restart = "always"\n[kubernetes]', "restart: is for graphs that are launched here"),
    ],
)  # fmt: skip
def test_wrong_graph_files(tmp_path: Path, old: str, new: str, said: str) -> None:
    """Each error names the file and the key, and says what would be right."""
    assert old in GRAPH
    path = tmp_path / "web.toml"
    path.write_text(GRAPH.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_graph(str(path))
    assert str(caught.value).startswith(f"web.toml: {said}")


def test_what_a_cluster_can_do(tmp_path: Path) -> None:
    """A cluster without an agent deletes, terminates and interrupts. Every other fault is left out, also one that is added later."""
    spec = web_spec(tmp_path, UP)
    can = {"delete", "terminate", "interrupt", "scale", "scale up", "rollout"}
    assert set(drawn_at(spec, "web")) == can
    known = {kind.title or kind.verb for kind in KINDS if kind.is_fault}
    assert set(left_out(spec)) == known - can
    check_plan(spec, parse_plan("p", ["delete web 0 grace 0 s", "wait 1 s", "terminate web 1"]), "p")  # fmt: skip
    with pytest.raises(InputError, match=r"not possible here: a container can't kill.*write agent"):
        check_plan(spec, parse_plan("p", ["kill web 0"]), "p")


def test_delete_needs_pods() -> None:
    """A launched graph does not draw deletes, is not told of them, and refuses them in plans."""
    spec = on_this_machine(load_graph("reference"))
    assert "delete" not in left_out(spec)
    assert all("delete" not in drawn_at(spec, role.name) for role in spec.roles)
    with pytest.raises(InputError, match="decode 0 is not a pod: reference has no table"):
        check_plan(spec, parse_plan("p", ["delete decode 0"]), "p")


@pytest.mark.parametrize("text", ["delete web 0", "delete web 1 grace 0 s", "delete web 0 grace 5 s"])  # fmt: skip
def test_delete_as_text(text: str) -> None:
    """The text form is read back. A delete with another grace may be shrunk to one with the pod's own."""
    step = parse_step(text)
    assert isinstance(step, Delete)
    assert str(step) == text
    plain = Delete(step.role, step.index)
    assert [*step.simpler(spec_of())] == ([] if step == plain else [plain])
    assert step.covers(step)
    assert step.covers(plain)
    assert plain.covers(step) is (step == plain)


@pytest.mark.parametrize("text", ["scale web to 0", "rollout web", "cordon web 1"])
def test_faults_of_workloads_as_text(text: str, tmp_path: Path) -> None:
    """The text form is read back. A launched graph refuses these faults, and a cluster that may do them does not."""
    step = parse_step(text)
    assert str(step) == text
    assert step.is_fault
    spec = web_spec(tmp_path, GRAPH.replace("ready_s = 30", "cordon = true"))
    check_plan(spec, parse_plan("p", [text]), "p")
    launched = load_graph("reference")
    with pytest.raises(InputError, match=r"no role|no table \[kubernetes\]"):
        check_plan(launched, parse_plan("p", [text.replace("web", "decode")]), "p")


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (["scale web to 2"], "web has 2 replicas, expected a number below that"),
        (["scale web to 1", "delete web 1"], "web 1 may be gone: its role has another number of replicas until heal"),
        (["scale web to 1", "delete web 0"], "web 0 may be gone"),
        (["scale web to 1", "scale web to 0"], "web 0 may be gone"),
        (["scale web to 0", "rollout web"], "web 0 may be gone"),
        (["cordon web 0", "cordon web 1"], "another cordon still acts"),
        (["cordon web 0", "delete web 1", "wait 9 s", "terminate web 1"], "web 1 does not live any more"),
        (["cordon db 0"], 'web has no role "db"'),
        (["rollout db"], 'web has no role "db"'),
    ],
)  # fmt: skip
def test_impossible_faults_of_workloads(plan: list[str], said: str, tmp_path: Path) -> None:
    """Nobody knows which replica a scale leaves, so no step aims at its role. A pod does not come back to a cordoned node."""
    spec = web_spec(tmp_path, GRAPH.replace("ready_s = 30", "cordon = true"))
    with pytest.raises(InputError, match=re.escape(said)):
        check_plan(spec, parse_plan("p", plan), "p")


UP = GRAPH.replace("replicas = 2", "replicas = 2\nscale_to = 4")


def test_a_scale_to_more_replicas(tmp_path: Path) -> None:
    """It is possible up to `scale_to`, and ends no replica. The shrinker tries fewer. Without the key, no search draws it."""
    spec = web_spec(tmp_path, UP)
    three, four = ScaleUp("web", 3), ScaleUp("web", 4)
    assert parse_plan("p", ["scale web up to 4"]).steps == (four,)
    assert str(four) == "scale web up to 4"
    assert four.effect(spec) == "nothing"
    assert four.after(GraphModel(spec)).serves()
    assert (list(four.simpler(spec)), list(three.simpler(spec))) == ([three], [])
    assert four.covers(three)
    assert not three.covers(four)
    assert not Scale("web", 0).covers(three)
    assert "scale up" in drawn_at(spec, "web")
    assert "scale up" not in drawn_at(web_spec(tmp_path), "web")
    swept = {str(step) for plan in (*sweep(spec).first, *sweep(spec).second) for step in plan.faults}  # fmt: skip
    assert {"scale web up to 3", "scale web up to 4"} & swept


@pytest.mark.parametrize(
    ("text", "plan", "said"),
    [
        (GRAPH, ["scale web up to 3"], "web may have no more replicas: write scale_to = N into roles.web"),
        (UP, ["scale web up to 5"], "found 5, expected a number from 3 to 4 (roles.web.scale_to)"),
        (UP, ["scale web up to 2"], "found 2, expected a number from 3 to 4 (roles.web.scale_to)"),
        (UP, ["scale web up to 3", "delete web 1"], "web 1 may be gone: its role has another number of replicas until heal"),
    ],
)  # fmt: skip
def test_impossible_scales_to_more_replicas(
    text: str, plan: list[str], said: str, tmp_path: Path
) -> None:
    """The file bounds the number. Heal may take away any replica of the role, so no other step aims at it."""
    with pytest.raises(InputError, match=re.escape(said)):
        check_plan(web_spec(tmp_path, text), parse_plan("p", plan), "p")


def test_what_a_scale_leaves(tmp_path: Path) -> None:
    """A scale to one replica leaves a path, and a scale to none does not. The shrinker tries the milder one."""
    spec = web_spec(tmp_path)
    one, none = Scale("web", 1), Scale("web", 0)
    assert one.after(GraphModel(spec)).serves()
    assert not none.after(GraphModel(spec)).serves()
    assert not one.after(GraphModel(spec)).settled().later(99).works(Replica("web", 1))
    assert list(none.simpler(spec)) == [one]
    assert none.covers(one)
    assert not one.covers(none)


def test_seldom_faults_of_a_cluster(tmp_path: Path) -> None:
    """A search draws them as seldom faults, and their plans are swept: each at the role, a scale to one less and to none."""
    spec = web_spec(tmp_path, GRAPH.replace("ready_s = 30", "cordon = true"))
    swept = {str(step) for plan in (*sweep(spec).first, *sweep(spec).second) for step in plan.faults}  # fmt: skip
    assert {"scale web to 0", "scale web to 1", "rollout web", "cordon web 0"} <= swept
    for kind in (Scale, Rollout, Cordon):
        assert all(rule.seldom for rule in kind.rules())
    dynamo = GRAPH.replace("ready_s = 30", 'deployment = "chat"').replace('select = "app=web"', "")
    lacks = web_spec(tmp_path, dynamo).lacks
    assert "keeps the numbers of replicas" in lacks["scale"]
    assert "write cordon = true" in lacks["cordon"]


@pytest.mark.parametrize(
    ("owner", "age_s", "is_over"),
    [
        (Owner.here(), 999.0, False),
        (replace(Owner.here(), start_s=1.0), 0.0, True),
        (Owner("elsewhere", 1, 1.0), 1.0, False),
        (Owner("elsewhere", 1, 1.0), 31.0, True),
    ],
)
def test_whose_record(owner: Owner, age_s: float, is_over: bool) -> None:  # noqa: FBT001 # a column of the table
    """A record is over as soon as its process has ended. That of another machine is over when it has been silent for 30 s."""
    record = Record("replicas", 2, 1, owner, time.time() - age_s)
    assert record.is_over() is is_over
    item = {"metadata": {**record.marks("ab12")}}
    assert record_of(item) == record
    assert record_of({"metadata": {"annotations": {NOTE: "{"}}}) is None
    assert record_of({"metadata": {}}) is None


def test_a_deleted_pod_comes_back(tmp_path: Path) -> None:
    """The model counts a deleted pod as dead until the controller has made a new one."""
    spec = web_spec(tmp_path)
    after = parse_step("delete web 0").after(GraphModel(spec))
    assert not after.lives(parse_step("delete web 0").aims[0])
    assert after.later(1.0).lives(parse_step("delete web 0").aims[0])


@pytest.mark.parametrize(
    ("slots", "shard", "said"),
    [
        (2, 0, "--chaos-slots: found 2, expected 1: all runs use the one graph that"),
        (1, 1, "pytest -n: expected one process: all runs use the one graph that web"),
    ],
)
def test_runs_of_a_cluster_do_not_go_on_side_by_side(
    tmp_path: Path, slots: int, shard: int, said: str
) -> None:
    """Two runs at once would hit each other's pods. Launched graphs have one graph for each run."""
    with pytest.raises(InputError, match=said):
        check_alone(web_spec(tmp_path), slots, shard)
    check_alone(web_spec(tmp_path), 1, 0)
    check_alone(load_graph("reference"), slots, shard)


def test_the_manifest_of_the_docs_fits_its_graph_file() -> None:
    """The Deployment has the labels, the replicas, the port and the model that the graph file before it names."""
    yaml = pytest.importorskip("yaml")
    page = DOCS / "how-to" / "kubernetes.md"
    text = page.read_text()
    spec = read_graph(
        "docs", tomllib.loads(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0]), page
    )
    deployment, service = yaml.safe_load_all(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    (role,) = spec.roles
    assert role.pods is not None
    assert spec.cluster is not None
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert has_labels(role.pods.select, template["metadata"]["labels"])
    assert deployment["spec"]["replicas"] == role.replicas
    assert [one["containerPort"] for one in container["ports"]] == [*role.pods.ports.values()]
    assert spec.load.model in container["args"]
    assert role.ready is not None
    assert role.ready.get.endswith(container["readinessProbe"]["httpGet"]["path"])
    assert service["spec"]["selector"] == template["metadata"]["labels"]
    for one in (deployment, service):
        assert one["metadata"]["namespace"] == spec.cluster.namespace

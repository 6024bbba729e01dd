"""The test cluster behaves as a real one where it matters, and our client speaks to it: streams, watches, `kubectl`."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    SERVICES,
    Json,
    name_of,
)
from graphquake.harness.kubernetes.api.port_forward import forwarded
from graphquake.harness.kubernetes.api.shell import run, shell
from graphquake.harness.kubernetes.api.watch import Watch

from support.cluster.cluster import Cluster, can_run_pods, running
from support.cluster.manifests import container, deployment, pod, server, service
from support.cluster.patches import Appliers, merged, strategic
from support.cluster.selectors import has_fields, has_labels
from support.cluster.store import Refused, Store
from support.until import until

pytestmark = pytest.mark.roomy

needs_pods = pytest.mark.skipif(
    not can_run_pods(), reason="pods need PID namespaces, and so root, on this machine"
)


def state(cluster: Cluster, name: str = "") -> Json:
    """The status of the first container of a pod, or of the only pod."""
    pods = [one for one in cluster.store.all(PODS) if not name or name_of(one) == name]
    states = pods[0].get("status", {}).get("containerStatuses") if pods else None
    return dict(states[0]) if states else {}


def phase(cluster: Cluster, name: str) -> str:
    """The phase of a pod."""
    return str(cluster.store.get(PODS, "default", name).get("status", {}).get("phase"))


# ------------------------------------------------------------------------------------------------------------- pods


@needs_pods
def test_a_deployment_serves_and_its_containers_restart(tmp_path: Path) -> None:
    """A killed container has exit code 137, a new id, and a restart. Meanwhile its pod is not ready, and no endpoint either."""

    async def body() -> None:
        async with running(tmp_path) as cluster, cluster.client() as client:
            await client.create(DEPLOYMENTS, deployment("web", 1, server()))
            await client.create(SERVICES, service("web"))
            await until(lambda: state(cluster).get("ready"))
            name = name_of(cluster.store.all(PODS)[0])
            before = state(cluster)
            await until(lambda: endpoints(cluster) == [(name, True)])
            async with forwarded(client, "default", name, 8000) as way:
                assert await got(way.port) == f"{name} says hello"
                sudden = await run(client, "default", name, "main", ["sh", "-c", "kill -9 1; echo $?"], 5)  # fmt: skip
                assert (sudden.status, sudden.out) == (0, "0\n")
                assert await got(way.port) == f"{name} says hello"
                cluster.kubelet.pods[cluster.store.all(PODS)[0]["metadata"]["uid"]].signal(
                    signal.SIGKILL
                )
                await until(lambda: endpoints(cluster) == [(name, False)])
                await until(lambda: state(cluster).get("ready"))
                assert await got(way.port) == f"{name} says hello"
            after = state(cluster)
            assert after["restartCount"] == 1
            assert after["containerID"] != before["containerID"]
            ended = after["lastState"]["terminated"]
            assert (ended["exitCode"], ended["containerID"]) == (137, before["containerID"])
            assert [one["reason"] for one in cluster.store.all(EVENTS)] == ["Started", "Started"]
            log = await text_of(client, f"{PODS.path('default', name, 'log')}?previous=true")
            assert log == "up\n"

    asyncio.run(body())


def endpoints(cluster: Cluster) -> list[tuple[str, bool]]:
    """The pods of all EndpointSlices, and whether each is ready."""
    found = [one for made in cluster.store.all(ENDPOINT_SLICES) for one in made["endpoints"]]
    return [(one["targetRef"]["name"], one["conditions"]["ready"]) for one in found]


async def got(port: int) -> str:
    """The answer of a web server on this machine."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{port}/") as answer,
    ):
        return await answer.text()


async def text_of(client: Client, path: str) -> str:
    """An answer that is not JSON."""
    answer = await client.stream(path, {}, 5)
    try:
        return await answer.text()
    finally:
        answer.close()


@needs_pods
def test_a_command_in_a_container(tmp_path: Path) -> None:
    """A command gets its input and gives its output and exit status. It sees the end of its input when the connection ends."""

    async def body() -> None:
        async with running(tmp_path) as cluster, cluster.client() as client:
            await client.create(PODS, pod("a", container("sleep", "60")))
            await until(lambda: state(cluster).get("ready"))
            ran = await run(client, "default", "a", "main", ["sh", "-c", "echo $$ $0; echo bad >&2; exit 3"], 5)  # fmt: skip
            assert (ran.status, ran.err) == (3, "bad\n")
            assert ran.out.endswith(" sh\n")
            with pytest.raises(ApiError, match=r'"sleep" in default/a did not end within 0\.1 s'):
                await run(client, "default", "a", "main", ["sleep", "5"], 0.1)
            mark = tmp_path / "mark"
            argv = ["sh", "-c", f"cat; touch {mark}"]
            async with shell(client, "default", "a", "main", argv) as cat:
                await cat.write(b"hello")
                async for data in cat.read():
                    assert data == b"hello"
                    break
                assert not mark.exists()
            await until(mark.exists)
            with pytest.raises(ApiError, match="status 400"):
                await run(client, "default", "a", "other", ["true"], 5)

    asyncio.run(body())


@needs_pods
def test_deletes_and_their_grace(tmp_path: Path) -> None:
    """A delete sends SIGTERM, and SIGKILL after the grace. A forced delete removes the object at once; its process lives 2 s longer.

    The object of any other pod outlives its process, and shows how that ended.
    """

    async def body() -> None:
        async with running(tmp_path) as cluster, cluster.client() as client:
            for name, lingers_s in (("polite", "0.1"), ("slow", "30"), ("forced", "30")):
                await client.create(PODS, pod(name, server(LINGERS_S=lingers_s)))
            await until(lambda: all(state(cluster, n).get("ready") for n in ("polite", "slow", "forced")))  # fmt: skip
            (forced,) = (run.containers[0] for run in cluster.kubelet.pods.values() if name_of(run.pod) == "forced")  # fmt: skip
            begun_s = time.monotonic()
            for item in list(cluster.store.all(PODS)):
                grace_s = {"polite": None, "slow": 2, "forced": 0}[name_of(item)]
                assert await client.delete(PODS, item, grace_s=grace_s)
            await until(lambda: forced.over)
            assert time.monotonic() - begun_s > 1.9
            await until(lambda: not cluster.kubelet.pods)
            last = {
                name_of(one.item): one.item["status"]["containerStatuses"][0]["state"]
                for one in cluster.store.log
                if one.kind == "DELETED" and one.resource == PODS
            }
            assert last["polite"]["terminated"]["exitCode"] == 0
            assert last["slow"]["terminated"]["exitCode"] == 137
            assert "running" in last["forced"]
            assert forced.over["exitCode"] == 137
            logs = [log.read_text() for log in (tmp_path / "pods").rglob("*.log")]
            assert logs == ["up\nSIGTERM\n"] * 3

    asyncio.run(body())


@needs_pods
def test_a_container_that_fails_again_and_again_is_backed_off(tmp_path: Path) -> None:
    """The first restart comes at once, the next one after 10 s, then 20 s. With `Never` there is none, and the pod has failed."""

    async def body() -> None:
        async with running(tmp_path, speed=100) as cluster, cluster.client() as client:
            await client.create(PODS, pod("loop", container("sh", "-c", "exit 4")))
            await client.create(PODS, pod("once", container("sh", "-c", "exit 5"), restartPolicy="Never"))  # fmt: skip
            await until(lambda: state(cluster, "loop").get("restartCount") == 3)
            starts = [one for one in (tmp_path / "pods").rglob("*.log") if "loop" in str(one)]
            _, second, third, fourth = sorted(one.stat().st_ctime for one in starts)
            assert third - second >= 0.1
            assert fourth - third >= 0.2
            await until(lambda: phase(cluster, "once") == "Failed")
            assert state(cluster, "once")["state"]["terminated"]["exitCode"] == 5

    asyncio.run(body())


def test_owned_objects_are_collected(tmp_path: Path) -> None:
    """The end of an owner is the end of what it owns, and the end of a namespace of everything in it. A finalizer delays it."""

    async def body() -> None:
        async with running(tmp_path) as cluster, cluster.client() as client:
            cluster.namespace("one")
            made = await client.create(DEPLOYMENTS, deployment("web", 0, server(), namespace="one"))
            await client.create(SERVICES, service("web", "one"))
            await until(lambda: cluster.store.all(REPLICA_SETS) and cluster.store.all(ENDPOINT_SLICES))  # fmt: skip
            await client.patch(DEPLOYMENTS, "one", "web", {"metadata": {"finalizers": ["wait"]}})
            assert await client.delete(DEPLOYMENTS, made)
            assert cluster.store.all(REPLICA_SETS)
            await client.patch(DEPLOYMENTS, "one", "web", {"metadata": {"finalizers": None}})
            assert not cluster.store.all(REPLICA_SETS)
            assert await client.delete(DEPLOYMENTS, made) is False
            assert await client.delete(NAMESPACES, await client.get(NAMESPACES, "", "one"))
            assert not cluster.store.all(ENDPOINT_SLICES)

    asyncio.run(body())


def test_a_watch_loses_nothing_while_the_api_server_is_away(tmp_path: Path) -> None:
    """The API server cuts all connections, things change, and old versions are forgotten. The watch then knows what there is."""

    async def body() -> None:
        async with running(tmp_path) as cluster, cluster.client() as client:
            watch = Watch(client, SERVICES, "default")
            told: list[str] = []

            following = asyncio.create_task(follow(watch, told))
            await client.create(SERVICES, service("a"))
            await until(lambda: told == ["ADDED a"])
            cluster.api.go_away()
            cluster.store.delete(SERVICES, cluster.store.get(SERVICES, "default", "a"))
            cluster.store.create(SERVICES, service("b"))
            await asyncio.sleep(0.3)
            cluster.api.is_away = False
            await until(lambda: told == ["ADDED a", "DELETED a", "ADDED b"])
            assert watch.lists == 1
            cluster.api.go_away()
            cluster.store.create(SERVICES, service("c"))
            cluster.store.delete(SERVICES, cluster.store.get(SERVICES, "default", "b"))
            cluster.store.compact()
            cluster.api.is_away = False
            await until(lambda: told[3:] == ["DELETED b", "ADDED c"])
            assert watch.lists == 2
            following.cancel()

    asyncio.run(body())


def test_a_long_log_forgets_its_older_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later changes are found by their version, and the memory of a long search has a bound."""
    monkeypatch.setattr("support.cluster.store.LOG_CHANGES", 10)
    store = Store()
    for name in "abcdefghijk":
        store.create(NAMESPACES, {"metadata": {"name": name}})
    assert [name_of(one.item) for one in store.log] == list("ghijk")
    assert store.since(store.compacted) == store.log
    assert [name_of(one.item) for one in store.since(store.version - 2)] == ["j", "k"]
    assert store.since(store.version) == []


async def follow(watch: Watch, told: list[str]) -> None:
    """Note each change of a watch."""
    async for change in watch.changes():
        told.append(f"{change.kind} {name_of(change.item)}")  # noqa: PERF401 # others read it meanwhile


@needs_pods
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not a program here")
def test_kubectl(tmp_path: Path) -> None:
    """`kubectl` finds the kinds, and applies, waits for a rollout, executes, shows logs, scales and deletes."""

    async def body() -> None:
        async with running(tmp_path) as cluster:

            async def kubectl(*argv: str) -> str:
                process = await asyncio.create_subprocess_exec(
                    "kubectl", *argv, stdout=-1, stderr=-2,
                    env={"KUBECONFIG": str(cluster.config), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
                )  # fmt: skip
                out, _ = await process.communicate()
                assert process.returncode == 0, out.decode()
                return out.decode()

            path = tmp_path / "web.json"
            # A process that has not set its handler yet does not see SIGTERM.
            made = deployment("web", 1, server(), terminationGracePeriodSeconds=2)
            path.write_text(json.dumps(made))
            assert "created" in await kubectl("apply", "-f", str(path))
            assert "applied" in await kubectl("apply", "--server-side", "-f", str(path))
            assert "successfully rolled out" in await kubectl("rollout", "status", "deploy/web")
            (name,) = (await kubectl("get", "po", "-l", "app=web", "-o", "name")).split()
            assert await kubectl("exec", name, "--", "sh", "-c", "echo here") == "here\n"
            assert await kubectl("logs", name) == "up\n"
            await kubectl("scale", "deploy/web", "--replicas=0")
            await until(lambda: not cluster.store.all(PODS))
            await kubectl("delete", "deploy/web")
            assert not cluster.store.all(DEPLOYMENTS)

    asyncio.run(body())


# ---------------------------------------------------------------------------------------------------- pure functions


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("patch", "after"),
    [
        ({"a": None}, {"b": {"x": 1}, "env": [{"name": "p", "value": "1"}]}),
        ({"b": {"y": 2}}, {"a": 1, "b": {"x": 1, "y": 2}, "env": [{"name": "p", "value": "1"}]}),
        ({"env": []}, {"a": 1, "b": {"x": 1}, "env": []}),
    ],
)
def test_merge_patch(patch: dict[str, Any], after: dict[str, Any]) -> None:
    """None removes, a table is merged, a list is replaced."""
    old = {"a": 1, "b": {"x": 1}, "env": [{"name": "p", "value": "1"}]}
    assert merged(old, patch) == after


@pytest.mark.simulated
def test_strategic_patch() -> None:
    """Items of a keyed list are merged by their key, and `$patch: delete` removes one."""
    old = {"env": [{"name": "p", "value": "1"}, {"name": "q", "value": "2"}]}
    patch = {"env": [{"name": "q", "value": "3"}, {"name": "r", "value": "4"}, {"name": "p", "$patch": "delete"}]}  # fmt: skip
    assert strategic(old, patch) == {"env": [{"name": "q", "value": "3"}, {"name": "r", "value": "4"}]}  # fmt: skip


@pytest.mark.simulated
def test_server_side_apply() -> None:
    """A manager's field that it leaves out goes away, another's stays, and another value for it is a conflict without force."""
    appliers = Appliers()
    item: Json = {"metadata": {"name": "x", "uid": "u"}, "spec": {}}
    both = {"metadata": {"name": "x"}, "spec": {"replicas": 1, "paused": True}}
    item = appliers.applied(item, both, "one", force=False)
    item = appliers.applied(item, {"spec": {"paused": True}}, "two", force=False)
    item = appliers.applied(item, {"metadata": {"labels": {"a": "b"}}}, "one", force=False)
    assert item["spec"] == {"paused": True}
    assert item["metadata"]["labels"] == {"a": "b"}
    with pytest.raises(Refused, match=r'conflict with "two": \.spec\.paused'):
        appliers.applied(item, {"spec": {"paused": False}}, "one", force=False)
    item = appliers.applied(item, {"spec": {"paused": False}}, "one", force=True)
    assert item["spec"] == {"paused": False}


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("selector", "holds"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier!=back", True),
        ("app!=web", False),
        ("app in (web, db), !other", True),
        ("app notin (web)", False),
        ("other", False),
    ],
)
def test_label_selectors(selector: str, holds: bool) -> None:  # noqa: FBT001
    """Each form of a selector."""
    assert has_labels(selector, {"app": "web", "tier": "front"}) is holds


@pytest.mark.simulated
def test_field_selectors() -> None:
    """Fields are compared as texts. An absent field is empty."""
    item = {"metadata": {"name": "a"}, "status": {"phase": "Running"}}
    assert has_fields("metadata.name=a,status.phase!=Failed", item)
    assert has_fields("spec.nodeName=", item)
    assert not has_fields("metadata.name!=a", item)

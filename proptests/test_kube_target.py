"""A run on a graph in a cluster: incarnations, faults with their proofs, an API server that is away, and consent."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import aiohttp
import pytest

from graphquake.harness.errors import GraphError, InputError
from graphquake.harness.history.events import BecameReady, Died, Spawned, StepDone
from graphquake.harness.kubernetes.api.objects import NAMESPACES, PODS, Json, key_of, name_of
from graphquake.harness.kubernetes.pods import read_pod
from graphquake.harness.kubernetes.target import KubernetesTarget
from graphquake.harness.kubernetes.verbs import send
from graphquake.harness.spec.plan import parse_plan
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.scope import TREE

from support.cluster.cluster import Cluster, can_run_pods, running
from support.cluster.manifests import container, pod, server
from support.cluster.objects import is_ready
from support.cluster.rights import allowed, needed
from support.cluster.web import GRAPH, web_cluster, web_spec
from support.real_cluster.choice import is_real
from support.undisturbed import run_live
from support.until import until

pytestmark = [
    pytest.mark.skipif(
        not can_run_pods(), reason="pods need PID namespaces, and so root, on this machine"
    ),
    pytest.mark.roomy,
]
ZERO, ONE = Replica("web", 0), Replica("web", 1)


async def says(target: KubernetesTarget, number: int) -> str:
    """What the server behind an entry says, or why it says nothing."""
    try:
        async with aiohttp.ClientSession() as http, http.get(target.entries()[number]) as answer:
            return await answer.text()
    except aiohttp.ClientConnectorError:
        return "refused"


async def let_go(hold: Path, log: Path) -> None:
    """Let a server end that has said in its log that it was told to."""
    await until(lambda: log.exists() and "SIGTERM" in log.read_text())
    hold.unlink()


def names(cluster: Cluster) -> list[str]:
    """The names of all pods that were not deleted."""
    pods = cluster.store.all(PODS)
    return [name_of(one) for one in pods if "deletionTimestamp" not in one["metadata"]]


def test_lives_and_faults(tmp_path: Path) -> None:
    """Each fault lands with its proof, or says why not. Each new pod and each new container is the next incarnation."""
    hold, logs = tmp_path / "hold", tmp_path / "run" / "logs"

    async def body() -> None:
        async with (
            web_cluster(tmp_path, HOLD=str(hold)) as cluster,
            KubernetesTarget.attach(web_spec(tmp_path), tmp_path / "run") as target,
        ):
            before = names(cluster)
            assert sorted([await says(target, 0), await says(target, 1)]) == [
                f"{name} says hello" for name in before
            ]
            for landed in (
                await target.kill(ZERO, TREE),
                await target.stall(ZERO, TREE),
                await target.interrupt(ZERO),
            ):
                assert not landed.ok
            assert "does not handle SIGINT" in landed.proof
            assert target.alive(ZERO)
            assert target.ready(ZERO)

            hold.touch()
            landed = await target.terminate(ZERO)
            assert landed.ok
            assert "SIGTERM to the first process of pod web-" in landed.proof
            assert target.ending(ZERO)
            await let_go(hold, logs / "web-0.0.log")
            assert await target.gone(ZERO, 30)
            assert (await target.moments.started(ZERO, 30)).ok
            assert await target.wait_ready(30)
            assert names(cluster) == before

            kept = await says(target, 1)
            hold.touch()
            landed = await target.delete(ZERO, None)
            assert landed.ok
            assert "deleted (SIGTERM, and SIGKILL after 10 s)" in landed.proof
            assert target.ending(ZERO)
            assert await says(target, 0) == "refused"
            await let_go(hold, logs / "web-0.1.log")
            assert await target.gone(ZERO, 30)
            landed = await target.respawn(ZERO)
            assert landed.ok
            assert await target.wait_ready(30)
            assert len(set(names(cluster)) & set(before)) == 1
            assert await says(target, 1) == kept
            assert await says(target, 0) != "refused"

            # Somebody else kills a process on the node: the next incarnation, though no step aimed at it.
            pod = next(run for run in cluster.kubelet.pods.values() if name_of(run.pod) in kept)
            pod.signal(signal.SIGKILL)
            await until(lambda: any(isinstance(e, Died) and e.replica == ONE for e in target.log))
            assert await target.wait_ready(30)
        check_log(target, logs)

    asyncio.run(body())


def check_log(target: KubernetesTarget, folder: Path) -> None:
    """The log of `test_lives_and_faults` has each life and each death, and so have the files of its logs."""
    log = target.log
    lives = [(e.replica.index, e.incarnation) for e in log if isinstance(e, Spawned)]
    assert sorted(lives) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert len([e for e in log if isinstance(e, BecameReady)]) == len(lives)
    deaths = [(e.replica.index, e.status, e.aimed) for e in log if isinstance(e, Died)]
    assert deaths == [(0, 0, True), (0, 0, True), (1, -9, False)]
    logs = {path.name: path.read_text() for path in folder.iterdir()}
    assert logs["web-0.0.log"] == logs["web-0.1.log"] == "up\nSIGTERM\n"
    assert "web 1.0 ended with signal 9" in logs["kubernetes.log"]


def test_a_run_and_an_api_server_that_goes_away(tmp_path: Path) -> None:
    """A whole run deletes a pod by force. In the next one the API server is away while a container dies: its death is known afterwards."""

    async def body() -> None:
        async with web_cluster(tmp_path) as cluster:
            spec = web_spec(tmp_path)
            run = await run_live(
                spec, parse_plan("p", ["delete web 1 grace 0 s"]), tmp_path / "run"
            )
            assert run.verdict.kind == "kept", run.verdict
            (done,) = run.history.of(StepDone)
            assert "by force: gone from the API, SIGTERM, and SIGKILL 2 s later" in done.proof
            async with KubernetesTarget.attach(spec, tmp_path / "again") as target:
                await target.terminate(ZERO)
                await target.gone(ZERO, 30)
                await target.wait_ready(30)
                # A WebSocket counts as `create` for newer API servers, and agents are created.
                # A log is looked for once more if its end was not seen.
                spare = {("create", one) for one in ("pods", "pods/exec", "pods/portforward")}
                spare.add(("get", "pods"))
                # Pods are labelled for cuts by policies only.
                spare.add(("patch", "pods"))
                # The graph has no workloads of these kinds, and is not cut by policies.
                others = ("statefulsets", "daemonsets", "dynamographdeployments", "networkpolicies")
                spare |= {one for one in allowed() if one[1] in others}
                # The test itself made the Deployment.
                made = "POST /apis/apps/v1/namespaces/lab/deployments"
                asked = [one for one in cluster.api.requests if not one.startswith(made)]
                assert needed(asked) | spare == allowed()
                cluster.api.go_away()
                pod = next(iter(cluster.kubelet.pods.values()))
                pod.signal(signal.SIGKILL)
                await until(lambda: pod.containers[0].last)
                ended_s = time.monotonic()
                await asyncio.sleep(2.5)
                cluster.api.is_away = False
                await until(lambda: any(isinstance(e, Died) and not e.aimed for e in target.log))
                died = next(e for e in target.log if isinstance(e, Died) and not e.aimed)
                assert died.status == -9
                # The cluster tells whole seconds, and its clock is known to a second at first.
                assert died.at_s - ended_s < 2.1
                assert await target.wait_ready(30)

    asyncio.run(body())


def refusal(tmp_path: Path, text: str, cluster_namespace: str = "lab") -> str:
    """The error of an attempt to attach. Nothing was changed."""

    async def body() -> str:
        async with web_cluster(tmp_path) as cluster:
            if cluster_namespace != "lab":
                bare = {**cluster.store.get(NAMESPACES, "", "lab")}
                bare["metadata"] = {**bare["metadata"], "labels": {}}
                cluster.store.update(NAMESPACES, bare)
            spec = web_spec(tmp_path, text)
            try:
                async with KubernetesTarget.attach(spec, tmp_path / "run"):
                    return "attached"
            except (InputError, GraphError) as error:
                changes = [one for one in cluster.api.requests if one.split()[0] in {"DELETE", "PATCH", "PUT"}]  # fmt: skip
                assert changes == []
                return str(error)

    return asyncio.run(body())


@pytest.mark.parametrize(
    ("old", "new", "namespace", "said"),
    [
        ("", "", "bare", '"lab" has no label graphquake/consent=true, so nothing is done there'),
        ('"lab"', '"other"', "lab", '"other" is not a namespace of this cluster' if not is_real() else "it does not exist, or no role"),
        ("ready_s = 30", 'refused = ["te"]', "lab", 'kubernetes.context: "test" holds "te", so nothing'),
        ("app=web", "app=wrong", "lab", 'select "app=wrong" finds 0 pods, expected 2'),
        ("replicas = 2", "replicas = 1", "lab", 'select "app=web" finds 2 pods, expected 1'),
        ("ready_s = 30", 'context = "prod"', "lab", 'contexts: "prod" is missing'),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, old: str, new: str, namespace: str, said: str) -> None:
    """Without consent, in the wrong context, or without pods, nothing is changed, and the error says what to do."""
    waits = "wrong" in new or "replicas" in new
    text = GRAPH.replace("ready_s = 30", "ready_s = 1") if waits else GRAPH
    assert said in refusal(tmp_path, text.replace(old, new), namespace)


def test_to_attach_changes_nothing(tmp_path: Path) -> None:
    """To attach, look and leave changes nothing. A context that the list refuses is used if the file allows exactly its name."""

    async def body() -> None:
        text = GRAPH.replace("ready_s = 30", 'refused = ["te"]\nallowed = ["test"]')
        async with web_cluster(tmp_path) as cluster:
            spec = web_spec(tmp_path, text)
            async with KubernetesTarget.attach(spec, tmp_path / "run") as target:
                before = names(cluster)
                ways = sum("portforward" in one for one in cluster.api.requests)
                views = await target.views()
                # Each replica is asked once.
                assert sum("portforward" in one for one in cluster.api.requests) - ways == 2
                assert [(one.what, one.says, one.holds) for one in views] == [
                    *[("readiness", 1, 1)] * 2, *[("pod", 1, 1)] * 2,
                ]  # fmt: skip
                assert await target.measures() == []
                assert await target.leaks() == []
            assert names(cluster) == before
            asked = [one for one in cluster.api.requests if "dryRun=All" not in one]
            changes = [one for one in asked if one.startswith(("PATCH", "PUT"))]
            assert changes == []

    asyncio.run(body())


def test_no_views_while_a_deleted_pod_shuts_down(tmp_path: Path) -> None:
    """A pod that does not end at SIGTERM serves beside its replacement. The graph may list both, so its lists are not judged."""

    async def body() -> None:
        async with web_cluster(tmp_path) as cluster:

            def pods() -> list[Json]:
                return cluster.store.all(PODS, "lab")

            spec = web_spec(tmp_path)
            async with KubernetesTarget.attach(spec, tmp_path / "run") as target:
                assert await target.views()
                before = [key_of(one) for one in pods()]
                old = next(iter(cluster.kubelet.pods.values()))
                old.signal(signal.SIGSTOP)
                cluster.store.delete(PODS, cluster.store.get(PODS, *key_of(old.pod)), 30)
                await until(
                    lambda: any(is_ready(one) for one in pods() if key_of(one) not in before)
                )
                assert len(pods()) == 3
                async with asyncio.timeout(10):
                    while await target.views():
                        await asyncio.sleep(0.02)
                old.signal(signal.SIGKILL)
                await until(lambda: len(pods()) == 2)
                async with asyncio.timeout(10):
                    while not await target.views():
                        await asyncio.sleep(0.02)

    asyncio.run(body())


def test_a_pod_of_another_workload(tmp_path: Path) -> None:
    """While one more pod runs under the selector, lists are not judged, and the graph is not ready for its next run."""

    async def body() -> None:
        async with (
            web_cluster(tmp_path) as cluster,
            cluster.client() as client,
            KubernetesTarget.attach(web_spec(tmp_path), tmp_path / "run") as target,
        ):
            assert await target.wait_ready(10)
            other = pod("other", server(), namespace="lab")
            other["metadata"]["labels"] = {"app": "web"}
            await client.create(PODS, other)
            async with asyncio.timeout(10):
                while await target.views():
                    await asyncio.sleep(0.02)
            assert all(map(target.ready, target.spec.replicas()))
            assert not await target.wait_ready(0.3)
            cluster.store.delete(PODS, cluster.store.get(PODS, "lab", "other"), 0)
            assert await target.wait_ready(10)
            assert await target.views()

    asyncio.run(body())


def test_a_signal_waits_until_the_process_handles_it(tmp_path: Path) -> None:
    """A process that has just begun does not handle SIGTERM yet, so the kernel would drop it. One that never does is not hit."""

    async def body() -> None:
        async with running(tmp_path) as cluster, cluster.client() as client:
            late = "sleep 0.7; trap 'exit 7' TERM; echo set; while :; do sleep 0.05; done"
            for name, argv in (("late", ["sh", "-c", late]), ("never", ["sleep", "60"])):
                await client.create(PODS, pod(name, container(*argv), restartPolicy="Never"))
            await until(lambda: len(cluster.kubelet.pods) == 2)
            runs = {name_of(run.pod): run for run in cluster.kubelet.pods.values()}
            await until(lambda: all(run.containers[0].pid for run in runs.values()))
            pods = {name: read_pod(cluster.store.get(PODS, "default", name)) for name in runs}
            begun_s = time.monotonic()
            landed = await send(client, pods["late"], signal.SIGTERM)
            assert landed.ok, landed.proof
            assert time.monotonic() - begun_s > 0.3
            await until(lambda: runs["late"].containers[0].over)
            assert runs["late"].containers[0].over["exitCode"] == 7
            landed = await send(client, pods["never"], signal.SIGTERM)
            assert not landed.ok
            assert "does not handle SIGTERM" in landed.proof

    asyncio.run(body())

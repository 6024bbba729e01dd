"""A graph in the test cluster: what a killed harness leaves, a search for a planted bug, single faults, and a search of real Dynamo.

python -m bench.bench_kube [--kills N] [--search RUNS] [--singles RUNS] [--dynamo SECONDS] [--graph NAME] [--seed N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from graphquake.harness.kubernetes.api.objects import (
    DEPLOYMENTS,
    NAMESPACES,
    NODES,
    PODS,
    labels_of,
)
from graphquake.harness.kubernetes.changes.records import LABEL, NOTE
from graphquake.harness.kubernetes.node.agents import RUN
from graphquake.harness.run.open_target import on_this_machine, sweep_leftovers
from graphquake.harness.spec.graph import load_graph
from graphquake.machines.plans.sweep import sweep

from support.cluster.cluster import Cluster, running
from support.cluster.dynamo import allowed, dynamo_graph
from support.cluster.kubelet import NODE
from support.cluster.networks import PodNetworks
from support.cluster.router import router_graph
from support.cluster.web import GRAPH, web_cluster

# A run on an idle machine takes about six seconds: the kills fall into all parts of it.
KILLED_AFTER_S = (0.8, 6.0)
UNDONE_WITHIN_S = 5.0
HARNESS = """
import asyncio, sys
from pathlib import Path
from graphquake.harness.run.live import run_live
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.spec.plan import parse_plan

plan = parse_plan("plan", sys.argv[3].split("; "))
asyncio.run(run_live(on_this_machine(load_graph(sys.argv[1])), plan, Path(sys.argv[2])))
"""
PLANS = (
    "stall web 0 for 4 s; wait 5 s",
    "stall web 1 for 2 s; cordon web 0; wait 3 s",
    "scale web to 1; wait 3 s",
    "scale web to 0; wait 3 s",
    "cordon web 1; delete web 0; wait 3 s",
    "rollout web; kill web 0; wait 1 s",
    "cut web 0 from web 1 for 4 s; wait 5 s",
    "lose 50% between web 0 and all for 4 s; wait 5 s",
    "squeeze web 0 cpu to 1% for 4 s; squeeze web 1 memory to 8 MiB more for 3 s; wait 5 s",
)
# The limits of a control group that nobody has lowered.
NO_LIMITS = ("max 100000", "max", "-1", "9223372036854771712")


def _stopped(cluster: Cluster) -> int:
    """The number of containers whose main process is stopped."""
    pids = [one.pid for run in cluster.kubelet.pods.values() for one in run.containers if one.pid]
    stats = (Path(f"/proc/{pid}/stat") for pid in pids)
    return sum(path.read_text().rpartition(")")[2].split()[0] == "T" for path in stats if path.exists())  # fmt: skip


def _cut(cluster: Cluster) -> int:
    """The number of pods whose network has the device of an agent."""
    pids = [run.containers[0].pid for run in cluster.kubelet.pods.values()]
    devices = (Path(f"/proc/{pid}/net/dev") for pid in pids if pid)
    return sum("wire:" in path.read_text() for path in devices if path.exists())


def _squeezed(cluster: Cluster) -> int:
    """The number of limits that are lower than those of a new container."""
    found = 0
    for run in cluster.kubelet.pods.values():
        for folder in run.containers[0].cgroups:
            for name in ("cpu.max", "memory.max", "cpu.cfs_quota_us", "memory.limit_in_bytes"):
                with suppress(OSError):
                    found += (folder / name).read_text().strip() not in NO_LIMITS
    return found


def _disturbed(cluster: Cluster) -> bool:
    """True while a stall, a fault of the network or a squeeze acts."""
    return bool(_stopped(cluster) or _cut(cluster) or _squeezed(cluster))


def _is_marked(item: dict[str, Any]) -> bool:
    meta = item["metadata"]
    return LABEL in (meta.get("labels") or {}) or NOTE in (meta.get("annotations") or {})


def _state(cluster: Cluster) -> dict[str, Any]:
    """What somebody else sees of the cluster, without what a rollout leaves on purpose."""
    work = json.loads(json.dumps(cluster.store.get(DEPLOYMENTS, "lab", "web")))
    work["spec"]["template"]["metadata"].pop("annotations", None)
    node = cluster.store.get(NODES, "", NODE)
    return {
        "workload": work["spec"],
        "labels": [work["metadata"].get("labels"), node["metadata"].get("labels")],
        "annotations": [work["metadata"].get("annotations") or {}, node["metadata"].get("annotations") or {}],
        "node": bool(node["spec"].get("unschedulable")),
        "namespaces": [one["metadata"]["name"] for one in cluster.store.all(NAMESPACES)],
        "agents": sum(RUN in labels_of(one) for one in cluster.store.all(PODS)),
    }  # fmt: skip


async def _settled(cluster: Cluster, agents: int) -> None:
    """Wait until two pods are ready and nothing else is there."""
    async with asyncio.timeout(60):
        while True:
            pods = cluster.store.all(PODS, "lab")
            conditions = [c for pod in pods for c in pod.get("status", {}).get("conditions", [])]
            ready = sum(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
            if len(pods) == 2 + agents and ready == 2 + agents:
                return
            await asyncio.sleep(0.05)


async def kills(count: int, seed: int, folder: Path) -> None:
    """Kill the harness at random moments. Print what was acting, how soon it ended, and what a sweep left."""
    draw = random.Random(seed)
    graph = folder / "web.toml"
    text = GRAPH.replace("ready_s = 30", 'ready_s = 30\nagent = "python"\ncordon = true')
    graph.write_text(f'network = "namespaces"\n{text}')
    async with web_cluster(folder, PodNetworks(), GOSSIPS="yes") as cluster:
        await _settled(cluster, 0)
        before, acting, slowest_s, wrong = _state(cluster), Counter[str](), 0.0, 0
        for number in range(count):
            plan, after_s = draw.choice(PLANS), draw.uniform(*KILLED_AFTER_S)
            command = [sys.executable, "-c", HARNESS, graph, folder / f"run{number}", plan]
            child = await asyncio.create_subprocess_exec(*map(str, command), stdout=-3, stderr=-3)
            await asyncio.sleep(after_s)
            if child.returncode is None:
                child.kill()
            await child.wait()
            killed_s = time.monotonic()
            now = _state(cluster)
            marked = _is_marked(cluster.store.get(DEPLOYMENTS, "lab", "web"))
            acting["stall"] += _stopped(cluster) > 0
            acting["network"] += _cut(cluster) > 0
            acting["squeeze"] += _squeezed(cluster) > 0
            acting["scale"] += marked
            acting["cordon"] += now["node"]
            acting["agent"] += now["agents"] > 0
            while _disturbed(cluster) and time.monotonic() < killed_s + 2 * UNDONE_WITHIN_S:
                await asyncio.sleep(0.02)
            slowest_s = max(slowest_s, time.monotonic() - killed_s)
            late = time.monotonic() - killed_s > UNDONE_WITHIN_S
            await sweep_leftovers(load_graph(str(graph)))
            await _settled(cluster, 0)
            after = _state(cluster)
            if late or after != before:
                wrong += 1
                print(f"kill {number} after {after_s:.2f} s of {plan}: {after}", flush=True)
        acts = ", ".join(f"{name} {number}" for name, number in acting.items())
        print(
            f"{count} kills; acting at the kill: {acts}; the last one was undone after {slowest_s:.2f} s; wrong: {wrong}"
        )


async def search(runs: int, seed: int, folder: Path) -> None:
    """Search the graph with the planted bug. Print the end of the output."""
    graph = router_graph(folder)
    graph.write_text(graph.read_text().replace("serves =", 'faults = ["delete", "terminate", "scale", "rollout"]\nserves ='))  # fmt: skip
    async with web_cluster(folder) as cluster:
        # The graph has manifests, so each run makes a namespace.
        cluster.grant("lab", makes_namespaces=True)
        await _pytest(graph, folder, {}, f"{runs}runs", "--chaos-max-findings", "1", seed=seed)


async def search_dynamo(name: str, seconds: int, seed: int, folder: Path) -> None:
    """Search real Dynamo. Print the end of the output. The results stay in `.graphquake/kube` of the working folder."""
    graph = dynamo_graph(name, folder / "graph", agent=True)
    (folder / "cluster").mkdir()
    results = Path.cwd() / ".graphquake" / "kube"
    options = ["--chaos-max-findings", "20", "--chaos-slots", "1", "--chaos-results-dir", str(results)]  # fmt: skip
    async with running(folder / "cluster", speed=4) as cluster:
        await _pytest(graph, folder, allowed(cluster), f"{seconds}s", *options, seed=seed)


async def singles(name: str, runs: int, side_by_side: int, folder: Path) -> None:
    """Run each plan of the first sweep of real Dynamo equally often, in all at least `runs` times. Print the counts of each plan.

    The runs stay in `.graphquake/kube-singles/GRAPH` of the working folder. Those of an earlier call are removed.
    """
    graph = dynamo_graph(name, folder / "graph", agent=True)
    (folder / "cluster").mkdir()
    plans = [plan.one_line() for plan in sweep(on_this_machine(load_graph(str(graph)))).first]
    each = math.ceil(runs / len(plans))
    results = Path.cwd() / ".graphquake" / "kube-singles" / name
    shutil.rmtree(results, ignore_errors=True)
    room = asyncio.Semaphore(side_by_side)

    async def count(plan: str, number: int, env: dict[str, str]) -> None:
        given = ["--graph", str(graph), "--runs", str(each), "--results-dir", f"{results}/{number}"]
        async with room:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "graphquake.machines.frontends.cli", "run", *given, plan,
                env={**os.environ, **env}, stdout=-1, stderr=-2,
            )  # fmt: skip
            out, _ = await child.communicate()
        lines = out.decode().splitlines()
        shown = (": broken", ": invalid", "    ")
        broken = [line for line in lines if any(one in line for one in shown)]
        said = lines[-1] if lines else f"exit status {child.returncode}"
        print(f"{plan}: {said}", *broken, sep="\n  ", flush=True)

    async with running(folder / "cluster", speed=4) as cluster:
        env = allowed(cluster)
        await asyncio.gather(*(count(plan, n, env) for n, plan in enumerate(plans)))


async def _pytest(
    graph: Path, folder: Path, env: dict[str, str], budget: str, *options: str, seed: int
) -> None:
    """Run pytest on a graph as a separate process, and print the end of its output."""
    given = ["--chaos-graph", str(graph), "--chaos-budget", budget, "--hypothesis-seed", str(seed)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *given, *options]
    env = {**os.environ, **env, "PYTHONPATH": str(Path(__file__).parent.parent)}
    child = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=env, stdout=-1, stderr=-2
    )
    out, _ = await child.communicate()
    print(out.decode()[-9000:])


def main() -> None:
    """Read the options, and run what they ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=0, help="how many times the harness is killed")
    parser.add_argument("--search", type=int, default=0, help="the runs of the search")
    parser.add_argument("--singles", type=int, default=0, help="the runs of single faults")
    parser.add_argument("--side-by-side", type=int, default=1, help="of them at once (1)")
    parser.add_argument("--dynamo", type=int, default=0, help="the seconds of a search of Dynamo")
    parser.add_argument(
        "--graph", default="dynamo-agg-kube", help="the graph of Dynamo (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="the seed of the moments, and of the search"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.kills:
            asyncio.run(kills(options.kills, options.seed, folder))
        if options.search:
            asyncio.run(search(options.search, options.seed, folder))
        if options.singles:
            asyncio.run(singles(options.graph, options.singles, options.side_by_side, folder))
        if options.dynamo:
            asyncio.run(search_dynamo(options.graph, options.dynamo, options.seed, folder))


if __name__ == "__main__":
    main()

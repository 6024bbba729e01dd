"""A small Kubernetes cluster in this process: an API server, controllers, and a kubelet whose containers are local processes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.kubeconfig import read_access
from graphquake.harness.kubernetes.api.objects import NAMESPACES, NODES
from graphquake.harness.processes.network.addresses import HUB

from support.cluster.api import ApiServer
from support.cluster.containers import cgroup_root, controllers
from support.cluster.controllers import control
from support.cluster.kubelet import NODE, Kubelet
from support.cluster.networks import PodNetworks
from support.cluster.policies import follow_policies
from support.cluster.sockets import exec_handler, log_handler, port_handler
from support.cluster.store import Store
from support.real_cluster.front import Front


def can_run_pods() -> bool:
    """True if this machine allows PID namespaces, which pods need here."""
    return os.geteuid() == 0 and shutil.which("nsenter") is not None


@dataclass
class Cluster:
    """The parts of a running cluster.

    Attributes:
        config: the path of its kubeconfig.
        url: the base URL of its API server.
    """

    store: Store
    api: ApiServer | Front
    kubelet: Kubelet
    config: Path
    url: str

    @property
    def user_config(self) -> Path:
        """The kubeconfig of the user whom graph files of tests get. Here everybody may do everything."""
        return self.config

    @asynccontextmanager
    async def client(self, patience_s: float = 45.0) -> AsyncIterator[Client]:
        """A client of this cluster."""
        access = read_access(env={"KUBECONFIG": str(self.config)})
        async with Client(access, patience_s=patience_s) as client:
            yield client

    def label_node(self, **labels: str) -> None:
        """Give the node these labels in place of its own."""
        node = self.store.get(NODES, "", NODE)
        self.store.change(NODES, node, metadata={**node["metadata"], "labels": labels})

    def namespace(self, name: str, **labels: str) -> None:
        """Create a namespace."""
        self.store.create(NAMESPACES, {"metadata": {"name": name, "labels": labels}})

    def grant(self, namespace: str, *, makes_namespaces: bool) -> None:
        """Give the user the rights that the docs name for this namespace."""


@asynccontextmanager
async def running(
    folder: Path, *, speed: float = 20.0, port: int = 0, networks: PodNetworks | None = None
) -> AsyncIterator[Cluster]:
    """Run a cluster until the context ends. Then every process of it is gone.

    Args:
        folder: an empty folder for the kubeconfig and the logs.
        speed: how many times as fast the kubelet probes and restarts.
        port: the port of the API server, or 0 for any.
        networks: gives each pod a network namespace. Without it, pods share the network of this machine.
    """
    store = Store()
    api = ApiServer(store)
    kubelet = Kubelet(store, folder / "pods", speed=speed, networks=networks)
    api.pod_parts = {
        "exec": exec_handler(kubelet),
        "portforward": port_handler(kubelet),
        "log": log_handler(kubelet),
    }
    runner = web.AppRunner(api.app(), shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    config = folder / "config"
    kubelet.config = config
    config.write_text(json.dumps(_kubeconfig(url)), encoding="utf-8")
    if networks is not None:
        await networks.begin(folder)
        await web.SockSite(runner, networks.listener(runner.addresses[0][1])).start()
        kubelet.config = folder / "config-of-pods"
        inside = f"http://{HUB}:{runner.addresses[0][1]}"
        kubelet.config.write_text(json.dumps(_kubeconfig(inside)), encoding="utf-8")
    cluster = Cluster(store, api, kubelet, config, url)
    cluster.namespace("default")
    store.create(NODES, {"metadata": {"name": NODE}, "spec": {}})
    tasks = [asyncio.create_task(kubelet.run()), asyncio.create_task(control(store))]
    if networks is not None and networks.enforces:
        tasks.append(asyncio.create_task(follow_policies(store, networks.hub)))
    try:
        yield cluster
    finally:
        await clean_up(tasks, runner, networks)


async def clean_up(
    tasks: list[asyncio.Task[None]],
    runner: web.AppRunner | None = None,
    networks: PodNetworks | None = None,
) -> None:
    """End the tasks of a cluster and its server, and remove its control groups. Raise the error of a task that failed."""
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    if runner is not None:
        await runner.cleanup()
    if networks is not None:
        networks.close()
    for root in controllers():
        for left in (*filter(Path.is_dir, root.iterdir()), root):
            with suppress(OSError):
                left.rmdir()
    controllers.cache_clear()
    cgroup_root.cache_clear()
    for end in ends:
        if isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError):
            raise end


def _kubeconfig(url: str) -> dict[str, object]:
    context = {"cluster": "test", "user": "test", "namespace": "default"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": context}],
    }


async def main(folder: Path, port: int) -> None:
    """Run a cluster until Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(folder, port=port) as cluster:
        print(f"export KUBECONFIG={cluster.config}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))

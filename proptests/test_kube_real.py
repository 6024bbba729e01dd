"""A run while a real API server restarts. See CONTRIBUTING.md for how to name one. CI has none."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from graphquake.harness.history.events import Died
from graphquake.harness.kubernetes.api.objects import DEPLOYMENTS
from graphquake.harness.kubernetes.target import KubernetesTarget
from graphquake.harness.spec.replica import Replica

from support.cluster.web import web_cluster, web_spec
from support.real_cluster.choice import is_real
from support.real_cluster.servers import CONFIG, PID
from support.until import until

pytestmark = pytest.mark.skipif(not is_real(), reason="needs a real API server")
ZERO, ONE = Replica("web", 0), Replica("web", 1)


def test_a_restart_of_the_api_server(tmp_path: Path) -> None:
    """A container that dies while the API server is killed and starts again is known afterwards. Faults land then, and are undone."""

    async def body() -> None:
        async with (
            web_cluster(tmp_path) as cluster,
            KubernetesTarget.attach(web_spec(tmp_path), tmp_path / "run") as target,
        ):
            there = target._roster.running(ZERO)
            assert there is not None
            watch = target._roster._watches["web"]
            heard_s, lists = watch.heard_s, watch.lists
            os.kill(int(Path(os.environ[CONFIG]).with_name(PID).read_text()), signal.SIGHUP)
            await asyncio.sleep(1)
            cluster.kubelet.pods[there[0].uid].signal(signal.SIGKILL)
            await until(lambda: any(isinstance(e, Died) for e in target.log), 50)
            print(f"heard again after {watch.heard_s - heard_s:.1f} s, {watch.lists - lists} lists")
            (died,) = [e for e in target.log if isinstance(e, Died)]
            assert (died.replica, died.status, died.aimed) == (ZERO, -9, False)
            assert await target.wait_ready(30)
            landed = await target.cluster.scale("web", 1)
            assert landed.ok, landed.proof
            assert (await target.cluster.unscale("web")).ok
            assert cluster.store.get(DEPLOYMENTS, "lab", "web")["spec"]["replicas"] == 2
            assert await target.wait_ready(30)

    asyncio.run(body())

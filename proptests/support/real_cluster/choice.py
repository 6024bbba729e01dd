"""Choose the cluster of a test: the small one of this project, or a real API server if the environment names one."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from support.cluster import cluster as small
from support.cluster.networks import PodNetworks
from support.real_cluster import cluster as real
from support.real_cluster.servers import CONFIG


def is_real() -> bool:
    """True if tests use a real API server."""
    return bool(os.environ.get(CONFIG))


def cluster_of_tests(
    folder: Path, *, speed: float = 20.0, networks: PodNetworks | None = None
) -> AbstractAsyncContextManager[small.Cluster]:
    """Run a cluster until the context ends. See `small.running`."""
    run = real.running if is_real() else small.running
    return run(folder, speed=speed, networks=networks)

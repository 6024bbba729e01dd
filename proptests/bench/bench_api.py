"""The API calls, the bytes and the memory of a run in a cluster, for graphs of several sizes.

It needs a real API server (see CONTRIBUTING.md). Each run has its own process. The fit says what one replica and one second cost. The lines
after it say what that means for a larger graph and for many slots: they are extrapolations, not measurements.

python -m bench.bench_api [--sizes 2 4 8] [--seconds 5 15] [--replicas 64] [--slots 100] [--run-s 10]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from graphquake.harness.kubernetes.api.kubeconfig import read_access
from graphquake.harness.kubernetes.api.objects import DEPLOYMENTS, PODS
from graphquake.harness.run.live import run_live
from graphquake.harness.spec.plan import parse_plan

from support.cluster.web import GRAPH, web_cluster, web_spec
from support.real_cluster.choice import is_real
from support.real_cluster.front import Front, noted

TEXT = GRAPH.replace("ready_s = 30", "ready_s = 60")


def kind_of(request: str) -> str:
    """What a request is, without names: its method, the kind of object, and the part of it."""
    method, url = request.split(maxsplit=1)
    path = urlsplit(url).path
    found = re.fullmatch(r"/apis?(?:/[^/]+)*?/v1[^/]*(?:/namespaces/[^/]+)?/([a-z]+)(?:/[^/]+)?(?:/([a-z]+))?", path)  # fmt: skip
    what = "/".join(filter(None, found.groups())) if found else path
    return f"{'WATCH' if 'watch=true' in url else method} {what}"


def measured(folder: Path, plan: str, size: int) -> dict[str, Any]:
    """Make one run in this process, and return its numbers."""
    spec = web_spec(folder, TEXT.replace("replicas = 2", f"replicas = {size}"))
    port = urlsplit(read_access().server).port
    assert port is not None
    requests: list[str] = []
    begun_s = time.monotonic()
    with noted(port, requests):
        run = asyncio.run(run_live(spec, parse_plan("p", plan.split("; ")), folder / "run"))
    used = resource.getrusage(resource.RUSAGE_SELF)
    folder_bytes = sum(one.stat().st_size for one in (folder / "run").rglob("*") if one.is_file())
    return {
        "verdict": " ".join([run.verdict.kind, *map(str, run.verdict.signatures)]),
        "calls": Counter(map(kind_of, requests)),
        "wall_s": time.monotonic() - begun_s,
        "clients": len(run.history.requests),
        "cpu_s": used.ru_utime + used.ru_stime,
        "rss_mib": used.ru_maxrss / 1024,
        "folder_bytes": folder_bytes,
    }


@dataclass(frozen=True, slots=True)
class Row:
    """The numbers of one run."""

    size: int
    said: dict[str, Any]
    received_bytes: int
    sent_bytes: int

    def text(self) -> str:
        """One line."""
        said = self.said
        return (
            f"{self.size} replicas, {said['wall_s']:.1f} s, {said['verdict']}: {sum(said['calls'].values())} calls, "
            f"{self.received_bytes / 1024:.0f} KiB received, {self.sent_bytes / 1024:.0f} KiB sent, "
            f"{said['clients']} requests of clients, {said['rss_mib']:.0f} MiB, {said['cpu_s']:.1f} s CPU, "
            f"folder {said['folder_bytes'] / 1024:.0f} KiB\n    {said['calls']}"
        )


async def rows(sizes: list[int], seconds: list[int]) -> list[Row]:
    """Make all runs."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        async with web_cluster(Path(name)) as cluster:
            front = cluster.api
            assert isinstance(front, Front)
            for size, wait_s in itertools.product(sizes, seconds):
                now = cluster.store.get(DEPLOYMENTS, "lab", "web")
                cluster.store.change(DEPLOYMENTS, now, spec={**now["spec"], "replicas": size})
                while len(cluster.store.all(PODS, "lab")) != size:
                    await asyncio.sleep(0.1)
                folder = Path(name) / f"{size}-{wait_s}"
                folder.mkdir()
                before = front.received_bytes, front.sent_bytes
                child = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "bench.bench_api", "--one", str(folder),
                    f"delete web 0; wait {wait_s} s", str(size),
                    stdout=asyncio.subprocess.PIPE,
                )  # fmt: skip
                said, _ = await child.communicate()
                row = Row(size, json.loads(said), front.received_bytes - before[0], front.sent_bytes - before[1])  # fmt: skip
                print(row.text(), flush=True)
                found.append(row)
    return found


def fit(rows: list[Row], value: Any) -> list[float]:
    """The least squares of `a + b * size + c * seconds + d * size * seconds`."""
    columns = [[1.0, r.size, r.said["wall_s"], r.size * r.said["wall_s"]] for r in rows]
    values = [float(value(r)) for r in rows]
    n = len(columns[0])
    left = [[sum(r[i] * r[j] for r in columns) for j in range(n)] for i in range(n)]
    right = [sum(r[i] * v for r, v in zip(columns, values, strict=True)) for i in range(n)]
    for i in range(n):  # Gauss, with the largest element as pivot
        pivot = max(range(i, n), key=lambda row: abs(left[row][i]))
        left[i], left[pivot], right[i], right[pivot] = left[pivot], left[i], right[pivot], right[i]
        for j in range(n):
            if j != i:
                factor = left[j][i] / left[i][i]
                left[j] = [a - factor * b for a, b in zip(left[j], left[i], strict=True)]
                right[j] -= factor * right[i]
    return [right[i] / left[i][i] for i in range(n)]


def main() -> None:
    """Print the numbers of each run, the fit, and the extrapolation."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measured(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--seconds", type=int, nargs="+", default=[5, 15])
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument("--slots", type=int, default=100)
    parser.add_argument("--run-s", type=float, default=10.0)
    given = parser.parse_args()
    if not is_real():
        sys.exit("needs a real API server: set GRAPHQUAKE_TEST_KUBECONFIG")
    found = asyncio.run(rows(given.sizes, given.seconds))
    size, run_s = given.replicas, given.run_s
    for name, value in {
        "calls": lambda r: sum(r.said["calls"].values()),
        "KiB received": lambda r: r.received_bytes / 1024,
        "KiB sent": lambda r: r.sent_bytes / 1024,
        "MiB of memory": lambda r: r.said["rss_mib"],
        "KiB of the run folder": lambda r: r.said["folder_bytes"] / 1024,
    }.items():
        a, b, c, d = fit(found, value)
        one = a + b * size + c * run_s + d * size * run_s
        print(f"{name}: {a:.1f} + {b:.2f} a replica + {c:.2f} a second + {d:.3f} for both")
        print(f"    extrapolated to {size} replicas and {run_s:g} s: {one:,.0f}")
        print(f"    for {given.slots} slots, in a second: {one * given.slots / run_s:,.0f}")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()

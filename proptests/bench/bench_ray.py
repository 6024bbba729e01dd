"""Slots on three nodes of Ray, each in a network namespace of this machine.

It compares the live seconds of equal plans with one slot and with more. Or it kills a node in mid-search, or cuts it off.
It needs Linux, root, the program `ip`, and the package `ray`.

python -m bench.bench_ray [--graph NAME] [--budget 40runs] [--slots 1,2,3] [--seed N] [--lose kill|cut]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

NODES = 3
PORT = 6379
# A node is lost this long after it ran a graph for the first time, in mid-run.
LOST_AFTER_S = 15.0
FIRST_GRAPH_WITHIN_S = 120.0
GONE_WITHIN_S = 20.0
STARTS_WITHIN_S = 60.0
# Each node has room for one slot, so slots are on different nodes.
RAY = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", "--num-cpus=1",
       "--object-store-memory=100000000")  # fmt: skip


@dataclass(frozen=True)
class Hosts:
    """Three namespaces that reach each other, and nothing else.

    Args:
        number: tells the hosts of one cluster from those of another one on this machine. 0 to 255.
    """

    number: int

    def name(self, host: int) -> str:
        """The name of a namespace."""
        return f"gqray{self.number}-{host}"

    def address(self, host: int) -> str:
        """The address of a host."""
        return f"10.77.{self.number}.{host + 1}"

    def inside(self, host: int, *argv: object) -> list[str]:
        """The command line of a program on a host."""
        return ["ip", "netns", "exec", self.name(host), *map(str, argv)]

    def cut(self, host: int) -> None:
        """Take the network away from a host."""
        _ip("-n", self.name(host), "link", "set", "eth0", "down")

    def processes(self, host: int) -> list[psutil.Process]:
        """All processes whose network is that of a host."""
        said = subprocess.run(["ip", "netns", "pids", self.name(host)], capture_output=True, text=True, check=True)  # fmt: skip
        found = []
        for pid in said.stdout.split():
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
        return found

    @contextmanager
    def open(self) -> Iterator[Hosts]:
        """Make the namespaces, and remove them at the end. The bridge is in the first one."""
        with ExitStack() as stack:
            for host in range(NODES):
                # A call that was killed has left its namespaces.
                subprocess.run(["ip", "netns", "delete", self.name(host)], capture_output=True, check=False)  # fmt: skip
                _ip("netns", "add", self.name(host))
                stack.callback(_ip, "netns", "delete", self.name(host))
                _ip("-n", self.name(host), "link", "set", "lo", "up")
            first = self.name(0)
            _ip("-n", first, "link", "add", "bridge", "type", "bridge")
            _ip("-n", first, "addr", "add", f"{self.address(0)}/24", "dev", "bridge")
            _ip("-n", first, "link", "set", "bridge", "up")
            for host in range(1, NODES):
                own = self.name(host)
                _ip("-n", first, "link", "add", f"to{host}", "type", "veth", "peer", "eth0", "netns", own)  # fmt: skip
                _ip("-n", first, "link", "set", f"to{host}", "master", "bridge", "up")
                _ip("-n", own, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
                _ip("-n", own, "link", "set", "eth0", "up")
            yield self


def _ip(*argv: str) -> None:
    subprocess.run(["ip", *argv], check=True)


@contextmanager
def cluster(hosts: Hosts, folder: Path) -> Iterator[None]:
    """A Ray cluster with a node on each host, until the end."""
    head = ["--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={folder}"]
    with ExitStack() as stack:
        log = stack.enter_context((folder / "ray.log").open("w"))
        for host in range(NODES):
            role = [f"--address={hosts.address(0)}:{PORT}"] if host else head
            argv = hosts.inside(host, *RAY, f"--node-ip-address={hosts.address(host)}", *role)
            started = subprocess.Popen(argv, stdout=log, stderr=log)
            stack.callback(_end, hosts, host, started)
            wait_for(lambda: _raylets(hosts) == host + 1, STARTS_WITHIN_S)  # noqa: B023 # asked at once
        time.sleep(2.0)
        yield


def command_of(process: psutil.Process) -> str:
    """The command line of a process, or nothing if it has ended."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _raylets(hosts: Hosts) -> int:
    """The number of nodes whose daemon runs."""
    return sum(any("raylet" in command_of(one) for one in hosts.processes(host)) for host in range(NODES))  # fmt: skip


def _end(hosts: Hosts, host: int, started: subprocess.Popen[bytes]) -> None:
    """Kill everything on a host, until nothing is left there."""
    while left := hosts.processes(host):
        for one in left:
            with suppress(psutil.Error):
                one.kill()
        time.sleep(0.05)
    started.wait()


def wait_for(holds: Callable[[], bool], within_s: float) -> float:
    """Wait until something holds, and return how long that took, in seconds."""
    begun_s = time.monotonic()
    while not holds():
        if time.monotonic() > begun_s + within_s:
            raise TimeoutError(f"it did not happen within {within_s:g} s")
        time.sleep(0.05)
    return time.monotonic() - begun_s


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        runs: the rows of the journal about runs.
        cases: the plans that it found, and their promises.
        took_s: the time of the whole call, in seconds.
        out: what it printed.
    """

    runs: list[dict[str, Any]]
    cases: list[str]
    took_s: float
    out: str

    def live_s(self) -> dict[str, float]:
        """The live seconds of each plan's first kept run."""
        kept = (row for row in reversed(self.runs) if row["says"] == "kept")
        return {"; ".join(row["plan"]): row["live_s"] for row in kept}


def search(hosts: Hosts, given: argparse.Namespace, slots: int, folder: Path) -> Found:
    """Search with some slots, from the first host."""
    results, cases = folder / "results", folder / "cases"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--chaos-graph", given.graph,
               "--chaos-budget", given.budget, "--hypothesis-seed", given.seed, "--chaos-results-dir", results,
               "--chaos-corpus", cases, "--chaos-slots", f"ray:{slots}@{hosts.address(0)}:{PORT}"]  # fmt: skip
    begun_s = time.monotonic()
    ended = subprocess.run(hosts.inside(0, *command), cwd=folder, capture_output=True, text=True, check=False)  # fmt: skip
    rows = [json.loads(line) for path in results.rglob("journal.jsonl") for line in path.open()]
    return Found(
        [row for row in rows if "live_s" in row],
        sorted(path.name for path in cases.rglob("*.json")),
        time.monotonic() - begun_s,
        ended.stdout + ended.stderr,
    )


def compare(given: argparse.Namespace, folder: Path) -> None:
    """Make a search for each number of slots, all at the same time, each on a separate cluster. Print how long equal plans took."""
    numbers = [int(one) for one in given.slots.split(",")]

    def one(number: int) -> Found:
        own = folder / str(number)
        own.mkdir()
        with Hosts(number).open() as hosts, cluster(hosts, own):
            return search(hosts, given, number, own)

    first: dict[str, float] = {}
    with ThreadPoolExecutor(len(numbers)) as pool:
        for number, found in zip(numbers, pool.map(one, numbers), strict=True):
            mine = found.live_s()
            first = first or mine
            same = first.keys() & mine.keys()
            ratio = sum(mine[plan] for plan in same) / max(1e-9, sum(first[plan] for plan in same))
            says = Counter(row["says"] for row in found.runs)
            nodes = Counter(row.get("node") for row in found.runs)
            print(f"ray:{number}: {dict(says)} in {found.took_s:.0f} s, nodes {dict(nodes)}")
            print(f"  {len(same)} equal plans took {ratio:.3f} of the time with ray:{numbers[0]}")
            print(f"  found: {', '.join(found.cases) or 'nothing'}")
            if not found.runs:
                print(found.out[-3000:])


def lose(given: argparse.Namespace, folder: Path) -> None:
    """Search with a slot on each node. Kill the last node in mid-search, or cut it off. Print what became of its runs and processes."""
    with (
        Hosts(0).open() as hosts,
        cluster(hosts, folder),
        ThreadPoolExecutor(1) as pool,
    ):
        taking = pool.submit(_take, hosts, given.lose)
        found = search(hosts, given, NODES, folder)
        says = Counter(row["says"] for row in found.runs)
        print(found.out[-1500:])
        print(
            f"{given.lose}: {taking.result()}; runs {dict(says)}; found {found.cases or 'nothing'}"
        )


def _take(hosts: Hosts, how: str) -> str:
    """Wait for runs on the last node, then kill it or cut it off. Say when its graph and its slot were gone."""
    for pause_s in (LOST_AFTER_S, 0.5):
        wait_for(lambda: bool(_graph(hosts)), FIRST_GRAPH_WITHIN_S)
        time.sleep(pause_s)
    graph = len(_graph(hosts))
    begun_s = time.monotonic()
    if how == "cut":
        hosts.cut(NODES - 1)
    else:
        for one in _slots(hosts, "raylet", "ray::"):
            with suppress(psutil.Error):
                one.kill()
    with suppress(TimeoutError):
        wait_for(lambda: not _graph(hosts), GONE_WITHIN_S)
    left = f"{len(_graph(hosts))} after {time.monotonic() - begun_s:.1f} s"
    with suppress(TimeoutError):
        wait_for(lambda: not _slots(hosts, "ray::_Actor"), GONE_WITHIN_S)
    slots = f"{len(_slots(hosts, 'ray::_Actor'))} after {time.monotonic() - begun_s:.1f} s"
    return f"{graph} processes of a graph, {left}; slots {slots}"


def _slots(hosts: Hosts, *words: str) -> list[psutil.Process]:
    """The processes on the last host with one of these words in the command line."""
    return [one for one in hosts.processes(NODES - 1) if any(word in command_of(one) for word in words)]  # fmt: skip


def _graph(hosts: Hosts) -> list[psutil.Process]:
    """The processes on the last host that are not of Ray."""
    commands = {one: command_of(one) for one in hosts.processes(NODES - 1)}
    return [one for one, command in commands.items() if command and "ray" not in command.lower()]


def main() -> None:
    """Read the options, and run what they ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", default="reference", help="the graph (%(default)s)")
    parser.add_argument("--budget", default="40runs", help="of each search (%(default)s)")
    parser.add_argument("--slots", default="1,2,3", help="of each search (%(default)s)")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--lose", choices=("kill", "cut"), help="lose a node in mid-search instead")
    given = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parent.parent))
    with tempfile.TemporaryDirectory(prefix="gq", ignore_cleanup_errors=True) as name:
        (lose if given.lose else compare)(given, Path(name))


if __name__ == "__main__":
    main()

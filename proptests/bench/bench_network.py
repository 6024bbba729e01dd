"""What network namespaces cost, side by side, how long connections need after a cut, and what is left when the harness is killed.

python -m bench.bench_network [--starts N] [--kills N]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import aiohttp

from graphquake.harness.processes.guard import pids
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.run.first_answer import first_answer
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import NetworkFault

from support.toys import left_of, toy_spec

ASKED = 400
ENDS_WITHIN_S = 2.0
CUTS_S = (0.5, 1.0, 2.0, 4.0)
HARNESS = """
import asyncio, random, sys
from pathlib import Path
from graphquake.harness.run.live import run_live
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.spec.plan import parse_plan

PLANS = (
    "cut worker 0 from front 0 for 2 s", "reset worker 0 from front 0 for 2 s", "lose 20% between worker 0 and front 0 for 2 s",
    "slow between worker 0 and front 0 to 0.05 MB/s for 2 s", "delay between worker 0 and front 0 by 100 ms for 2 s",
    "squeeze worker 0 cpu to 5% for 2 s", "squeeze worker 0 memory to 64 MiB more for 2 s", "squeeze worker 0 files for 2 s",
    "squeeze worker 0 disk for 2 s",
)
plan = parse_plan("plan", [random.choice(PLANS)])
asyncio.run(run_live(load_graph(sys.argv[1]), plan, Path(sys.argv[2])))
"""


async def _ask_s(session: aiohttp.ClientSession, target: Supervisor) -> float:
    """The time of one request of one token, in seconds."""
    begun_s = time.monotonic()
    body = {"model": "toy", "prompt": "x", "max_tokens": 1}
    async with session.post(f"{target.entries()[0]}/v1/completions", json=body) as answer:
        await answer.read()
    return time.monotonic() - begun_s


async def costs(starts: int, folder: Path) -> None:
    """Start the toy by turns with and without namespaces. Then ask both graphs by turns, while both run. Print the medians."""
    began: dict[str, list[float]] = {"host": [], "namespaces": []}
    for number in range(starts):
        for network, found in began.items():
            spec = toy_spec(folder, network=network)
            begun_s = time.monotonic()
            async with Supervisor.launch(spec, folder / f"{network}{number}") as target:
                await first_answer(target)
                found.append(time.monotonic() - begun_s)
    host_s, own_s = map(statistics.median, began.values())
    print(f"start: host {host_s:.3f} s, namespaces {own_s:.3f} s, {own_s - host_s:.3f} s more")
    asked: dict[str, list[float]] = {"host": [], "namespaces": []}
    async with AsyncExitStack() as stack:
        sides = {}
        for network in asked:
            spec = toy_spec(folder, network=network)
            opened = Supervisor.launch(spec, folder / f"{network}-beside")
            target = await stack.enter_async_context(opened)
            sockets = aiohttp.TCPConnector(force_close=True, socket_factory=target.socket_factory)
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=sockets))
            sides[network] = session, target
        for _ in range(ASKED):
            for network, found in asked.items():
                found.append(await _ask_s(*sides[network]))
    more_s = statistics.median(
        own - host for host, own in zip(asked["host"], asked["namespaces"], strict=True)
    )
    host_s, own_s = map(statistics.median, asked.values())
    print(
        f"request: host {host_s * 1e6:.0f} µs, namespaces {own_s * 1e6:.0f} µs, {more_s * 1e6:.0f} µs more"
    )


async def settling(folder: Path) -> None:
    """Print how long after the end of a cut the first byte arrives on a connection that was open before it."""
    spec = load_graph("reference", network="namespaces")
    one, other = Replica("decode", 0), Replica("registry", 0)
    async with Supervisor.launch(spec, folder / "settling") as target:
        for cut_s in CUTS_S:
            fault = NetworkFault("cut", 0.0, ((one, other), (other, one)))
            landed = await target.network.begin(1, fault, 5.0)
            await asyncio.sleep(cut_s)
            received = (await target.work())[one].received_bytes
            ended = await target.network.end(1, fault, 0.0)
            while (await target.work())[one].received_bytes <= received:
                await asyncio.sleep(0.01)
            print(
                f"cut of {cut_s:g} s ({landed.proof}): bytes {time.monotonic() - ended.at_s:.2f} s after its end"
            )
            await asyncio.sleep(2.0)


def kills(count: int, folder: Path) -> None:
    """Kill a harness at random moments of runs with network faults and squeezes. Print how often something was left after 2 s."""
    children = '{ engine = "toy-engine" }\ndisk_mib = 2'
    worker = "--children 1 --detach"
    path = toy_spec(folder, network="namespaces", worker=worker, children=children).path
    bad, longest_s = 0, 0.0
    seen: Counter[str] = Counter()
    for number in range(count):
        before = _kept_by_the_kernel()
        argv = [sys.executable, "-c", HARNESS, str(path), str(folder / f"kill{number}")]
        with subprocess.Popen(argv) as harness:
            time.sleep(random.uniform(0.0, 8.0))
            mine = _networks(left_of(harness.pid)) - _networks([os.getpid()])
            seen.update({one.split()[0] for one in _kept_by_the_kernel() - before})
            seen["namespaces"] += bool(mine)
            harness.kill()
        killed_s = time.monotonic()
        while _is_left(harness.pid, mine, before) and time.monotonic() - killed_s < ENDS_WITHIN_S:
            time.sleep(0.01)
        longest_s = max(longest_s, time.monotonic() - killed_s)
        bad += _is_left(harness.pid, mine, before)
    print(
        f"{count} kills: something was left after {ENDS_WITHIN_S:g} s in {bad}; the longest end took {longest_s:.2f} s; "
        f"kills that met: {', '.join(f'{what} {times}' for what, times in seen.items())}"
    )


def _is_left(harness: int, networks: set[str], before: set[str]) -> bool:
    """True if a process of a killed harness, one of its networks, or something that the kernel did not have before is left."""
    return bool(left_of(harness) or networks & _networks(pids()) or _kept_by_the_kernel() - before)


def _kept_by_the_kernel() -> set[str]:
    """The control groups of graphs, the mounts of this machine, and the mounts that any process of a graph sees."""
    groups = {f"group {path}" for path in Path("/sys/fs/cgroup").rglob("graphquake*")}
    mounts = set()
    for pid in pids():
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8").splitlines()
            mounts |= {f"disk {line.split()[4]}" for line in lines if "/disks/" in line}
    return groups | mounts


def _networks(processes: list[int]) -> set[str]:
    found = set()
    for pid in processes:
        link = Path(f"/proc/{pid}/ns/net")
        try:
            found.add(str(link.readlink()))
        except OSError:
            continue
    return found


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--kills", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(costs(arguments.starts, Path(folder)))
        asyncio.run(settling(Path(folder)))
        kills(arguments.kills, Path(folder))


if __name__ == "__main__":
    main()

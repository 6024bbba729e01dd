"""One core with many slots: how many runs the process of a search can order, receive, judge and save.

The slots are simulated. A slot waits as long as a run would take. A worker process makes the run's history, as large as a real one.
The process of the search is bound to one core, and the worker to another one.

python -m bench.bench_slots [--slots N] [--run-s S] [--replicas N] [--rate N] [--runs N] [--search]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import pickle
import resource
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from graphquake.harness.history.events import Measured
from graphquake.harness.history.host import Host
from graphquake.harness.run.status import RunStatus
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.rounds import Rounds
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.on_ray.parcels import pack
from graphquake.machines.runners.on_ray.places import Delivery, Order
from graphquake.machines.runners.on_ray.ray_runner import RayRunner
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.sessions.search import draw_plans, search

from support.made import spec_of
from support.sim_runner import SimRunner

# A run of the simulated runner lasts about this long on its own clock.
HISTORY_S = 13
PLANS = 60


def graph(replicas: int, rate_per_s: float) -> GraphSpec:
    """A graph of one frontend and many workers."""
    roles = {
        "frontend": {"command": "frontend", "entry": "http://127.0.0.1:{port.http}"},
        "worker": {"command": "worker", "replicas": replicas},
    }
    load = {"model": "tiny", "rate_per_s": rate_per_s}
    return spec_of(serves="frontend and worker", roles=roles, load=load)


def made(spec: GraphSpec, plan: Plan) -> bytes:
    """A run of the plan, as it arrives from a node: a request for each turn of the rate, and a sample of each replica in each second."""
    result = SimRunner([], spec=spec, every_s=1 / spec.load.rate_per_s)._outcome(plan)
    samples = [
        Measured(float(at_s), one, 0.5, 1 << 30, 1 << 34, 1.0, 0.0, 0.3, 40, 60)
        for at_s, one in itertools.product(range(HISTORY_S), spec.replicas())
    ]
    history = result.history
    history.events[:] = sorted([*history.events, *samples], key=lambda event: event.at_s)
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder) / "logs"
        logs.mkdir()
        for one in spec.replicas():
            (logs / f"{one.role}-{one.index}.0.log").write_text("a line of a log\n" * 40)
        return pickle.dumps(Delivery(replace(result, history=history), pack(Path(folder))))


@dataclass
class Slots:
    """See `Places`: simulated slots."""

    spec: GraphSpec
    run_s: float
    pool: ProcessPoolExecutor
    runs: int = 0
    received_bytes: int = 0
    ends: list[float] = field(default_factory=list)

    async def open(self) -> OneSlot:
        """See `Places.open`."""
        return OneSlot(self)


@dataclass
class OneSlot:
    """See `Slot`."""

    all: Slots
    host: Host = field(default_factory=lambda: Host(cores=2, node="simulated"))

    async def run(self, order: Order) -> Delivery:
        """See `Slot.run`."""
        making = asyncio.get_running_loop().run_in_executor(
            self.all.pool, made, self.all.spec, order.run.plan
        )
        await asyncio.sleep(self.all.run_s)
        data = await making
        self.all.runs += 1
        self.all.received_bytes += len(data)
        self.all.ends.append(time.monotonic())
        delivery: Delivery = pickle.loads(data)  # noqa: S301 # made here
        return delivery

    async def heartbeat(self) -> RunStatus | None:
        """See `Slot.heartbeat`."""
        return None

    async def stop(self) -> None:
        """See `Slot.stop`. The run goes on to its end."""

    async def leave(self) -> None:
        """See `Slot.leave`."""


def run_drawn(runner: RayRunner, plans: Iterator[Plan], slots: int, runs: int) -> None:
    """Run plans that were drawn before, as many at a time as there are slots."""
    pending = deque(runner.start(next(plans), "search") for _ in range(min(runs, slots)))
    for _ in range(runs - len(pending)):
        runner.discard(runner.result(pending.popleft()))
        pending.append(runner.start(next(plans), "search"))
    for one in pending:
        runner.discard(runner.result(one))


def run_search(runner: RayRunner, folder: Path) -> None:
    """Search, with draws, until the budget is spent."""
    cases, results = Corpus(folder / "cases"), folder / "results"
    rounds = Rounds(FindingPipeline(runner, cases, RunLog(None), results_dir=results))
    search(rounds, 1, findings_max=1)


def cores() -> Iterator[int]:
    """The cores of this machine, again and again."""
    return itertools.cycle(sorted(os.sched_getaffinity(0)))


def main() -> None:
    """Print the numbers of one search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=100)
    parser.add_argument("--run-s", type=float, default=10.0)
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--runs", type=int, default=600)
    parser.add_argument("--search", action="store_true", help="draw the plans, as a search does")
    given = parser.parse_args()
    mine, other = next(each := cores()), next(each)
    spec = graph(given.replicas, given.rate)
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(1, initializer=os.sched_setaffinity, initargs=(0, {other})) as pool,
    ):
        pool.submit(made, spec, Plan(())).result()
        os.sched_setaffinity(0, {mine})
        slots = Slots(spec, given.run_s, pool)
        plans = itertools.cycle(draw_plans(spec, 1, PLANS))
        budget = Budget(given.runs * given.run_s / given.slots if given.search else float("inf"))
        begun_s, cpu_s = time.monotonic(), time.process_time()
        with RayRunner(spec, Path(name) / "runs", budget, slots, slots=given.slots) as runner:
            if given.search:
                run_search(runner, Path(name))
            else:
                run_drawn(runner, plans, given.slots, given.runs)
        wall_s, cpu_s = time.monotonic() - begun_s, time.process_time() - cpu_s
    busy = slots.runs * given.run_s / given.slots / wall_s
    print(f"{slots.runs} runs in {wall_s:.0f} s, slots {busy:.0%} busy")
    print(f"CPU {cpu_s / wall_s:.0%} of one core, {cpu_s / max(1, slots.runs) * 1e3:.1f} ms a run")
    print(f"{slots.received_bytes / max(1, slots.runs) / 1024:.0f} KiB received a run")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak_mib:.0f} MiB")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()

"""Measure what needs a machine with a GPU: `tox -e bench -- gpu`.

Runs a few plans on each GPU graph. For each it prints the verdict, the seconds of start, respawn and run, and the tokens for each second.
With two GPUs it also runs prefill on one and decode on the other, and one worker across both. Then it runs a graph whose prefill worker
leaks GPU memory, which has to be found, and measures the engine alone. The exit status is 1 if a result is not as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Final

from graphquake.harness.history.events import BecameReady, Resumed, Spawned, StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.request import Outcome
from graphquake.harness.processes.resources.gpus import MIB, visible_gpus
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.reference.engine import Engine
from graphquake.harness.run.live import LiveRun, run_live
from graphquake.harness.spec.graph import GraphSpec, load_graph, read_graph
from graphquake.harness.spec.plan import parse_plan

PLANS: Final = {
    "reference-gpu": (
        "kill decode 0",
        "kill prefill 0",
        "kill decode 1 rank",
        "kill decode 0; wait until ready; respawn decode 0; wait until ready",
        "stall decode 0 for 2.50 s",
        "stall prefill 0 for 0.60 s",
        "burst 40 over 0.00 s, 50% leave",
        "burst 20 over 0.20 s; kill decode 0; burst 20 over 0.20 s",
        "hog decode 0 gpu compute for 3.00 s",
        # The engine keeps its memory. Its next incarnation has to do with what the hog has left.
        "hog decode 0 gpu memory to 4096 MiB free for 3.00 s",
        "hog decode 0 gpu memory to 4096 MiB free for 30.00 s; kill decode 0; respawn decode 0; wait until ready",
    ),
    "dynamo-gpu-agg": ("kill worker 0", "kill worker 1 rank", "burst 40 over 0.00 s, 50% leave"),
    "dynamo-gpu-disagg": (
        "kill decode 0",
        "kill prefill 0",
        "stall decode 0 for 0.60 s",
        "burst 40 over 0.00 s, 50% leave",
    ),
}

# These need vLLM. They run only if they are named.
WITH_VLLM: Final = {
    "vllm-serve": (
        "hog server 0 gpu compute for 3.00 s",
        "hog server 0 gpu memory to 4096 MiB free for 3.00 s",
        "hog server 0 gpu memory to 4096 MiB free for 60.00 s; kill server 0; respawn server 0; wait until ready",
    ),
    "dynamo-vllm": (
        "hog worker 0 gpu compute for 3.00 s",
        "hog worker 0 gpu memory to 4096 MiB free for 60.00 s; kill worker 0; respawn worker 0; wait until ready",
    ),
}

# These take each GPU for one rank alone.
ON_TWO: Final = {
    "disagg-p-tp-1-dp-1-d-tp-1-dp-1": (
        "kill decode 0; wait 0.50 s; respawn decode 0",
        "kill prefill 0",
        "stall decode 0 for 0.60 s",
        "burst 40 over 0.00 s, 50% leave",
    ),
    "agg-tp-2-dp-1": ("kill worker 0", "kill worker 0 rank 1", "burst 40 over 0.00 s"),
}
SEQUENCES: Final = 64
TOKENS: Final = 64


def respawns_s(history: History) -> list[float]:
    """Return the times from the pid of each respawned replica to its readiness, in seconds."""
    ready = {(e.replica, e.incarnation): e.at_s for e in history.of(BecameReady)}
    return [
        ready[e.replica, e.incarnation] - e.at_s
        for e in history.of(Spawned)
        if e.incarnation and (e.replica, e.incarnation) in ready
    ]


def tokens_per_s(history: History) -> float:
    """Return the tokens of right answers for each second."""
    right = [r for r in history.requests if r.outcome == Outcome.OK]
    return sum(r.tokens for r in right) / (max(r.ended_s for r in right) - right[0].sent_s)


def run(spec: GraphSpec, line: str, folder: Path) -> LiveRun:
    """Make one run and print a line about it."""
    done = asyncio.run(run_live(spec, parse_plan("plan", line.split(";")), folder))
    took = ", ".join(f"{s:.2f} s" for s in respawns_s(done.history)) or "none"
    print(
        f"{spec.name}: {line}: {done.verdict.kind}, start {done.start_s:.1f} s, run {done.live_s:.1f} s, "
        f"respawned {took}, {tokens_per_s(done.history):.0f} tokens/s",
        flush=True,
    )
    for text in (
        *(step.proof for step in done.history.of(StepDone) if step.step.verb == "hog"),
        *(event.proof for event in done.history.of(Resumed) if "hog" in line),
        *done.verdict.causes,
        *(f"{v.signature}: {v.seen}" for v in done.verdict.violations[:4]),
    ):
        print(f"    {text}", flush=True)
    return done


def hoarding() -> GraphSpec:
    """Return the reference graph on GPUs with a prefill worker that leaks GPU memory."""
    right = load_graph("reference-gpu")
    document = tomllib.loads(right.path.read_text(encoding="utf-8"))
    bug = Path(__file__).with_name("gpu_hoard.py")
    command = document["roles"]["prefill"]["command"]
    document["roles"]["prefill"]["command"] = command.replace(
        "-m graphquake.harness.reference.worker", f"'{bug}'"
    )
    return read_graph("hoard", document, right.path)


def leak_is_found(folder: Path) -> bool:
    """True if a run of the graph that leaks GPU memory breaks the promise."""
    found = run(replace(hoarding(), share_gpus=True), "burst 10 over 0.10 s", folder)
    return "no_leak / gpu memory" in map(str, found.verdict.signatures)


async def placed(spec: GraphSpec, folder: Path) -> None:
    """Print which replica has which GPU, and how much of its memory."""
    async with Supervisor.launch(spec, folder) as target:
        held = {one.replica: one.gpu_bytes // MIB for one in await target.measures()}
        for name, replica in target._replicas.items():
            if replica.gpus:
                where = ", ".join(replica.gpus)
                print(f"{spec.name}: {name}: GPU {where}: {held[name]} MiB", flush=True)


async def engine_tokens_per_s(backend: str, tp: int) -> float:
    """Return the tokens for each second that an engine makes of a full batch, without its minimum time for a token."""
    engine = await Engine.start(tp=tp, backend=backend, step_s=0.0, max_seqs=SEQUENCES)
    try:
        made = [await engine.prefill([number + 1] * 48) for number in range(SEQUENCES)]

        async def decode(token: int, kv: bytes) -> None:
            async for _ in engine.decode(kv, token, TOKENS):
                pass

        begun_s = time.monotonic()
        await asyncio.gather(*(decode(*one) for one in made))
        return SEQUENCES * TOKENS / (time.monotonic() - begun_s)
    finally:
        await engine.close()


def main() -> None:
    """Run all plans of the named graphs, or of all graphs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graphs", nargs="*", help=", ".join([*PLANS, *WITH_VLLM]))
    options = parser.parse_args()
    shared = PLANS | WITH_VLLM
    alone = ON_TWO if len(visible_gpus()) > 1 else {}
    plans = shared | alone
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in options.graphs or [*PLANS, *alone]:
            spec = load_graph(name, share_gpus=name in shared)
            asyncio.run(placed(spec, Path(folder)))
            runs = [run(spec, line, Path(folder)) for line in plans[name]]
            wrong += sum(done.verdict.kind != "kept" for done in runs)
            respawns = [s for done in runs for s in respawns_s(done.history)]
            print(
                f"{name}: medians: start {statistics.median(done.start_s for done in runs):.2f} s, "
                f"respawn {statistics.median(respawns):.2f} s, run {statistics.median(done.live_s for done in runs):.1f} s",
                flush=True,
            )
        if not options.graphs or "reference-gpu" in options.graphs:
            wrong += not leak_is_found(Path(folder))
    for backend, tp in (
        ("numpy", 1),
        ("torch", 1),
        *([("torch", 2)] if len(visible_gpus()) > 1 else []),
    ):
        speed = asyncio.run(engine_tokens_per_s(backend, tp))
        print(
            f"engine alone, {backend}, tp {tp}, {SEQUENCES} sequences: {speed:.0f} tokens/s",
            flush=True,
        )
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()

"""What there is to be seen on a machine with a GPU only: `python proptests/gpu.py`.

Runs a few plans on each GPU graph and says of each: the verdict, how long start, respawn and run took, how many tokens came in a second.
Then a graph whose prefill worker keeps GPU memory, which has to be found out. Ends with status 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Final

from graphquake.harness.history import OK, BecameReady, History, Spawned
from graphquake.harness.live import LiveRun, run_live
from graphquake.harness.plan import parse_plan
from graphquake.harness.spec import GraphSpec, load_graph, read_graph

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
    ),
    "dynamo-gpu-agg": ("kill worker 0", "kill worker 1 rank", "burst 40 over 0.00 s, 50% leave"),
    "dynamo-gpu-disagg": (
        "kill decode 0",
        "kill prefill 0",
        "stall decode 0 for 0.60 s",
        "burst 40 over 0.00 s, 50% leave",
    ),
}


def respawns_s(history: History) -> list[float]:
    """From the pid of a respawned worker to its readiness."""
    ready = {(e.replica, e.incarnation): e.at_s for e in history.of(BecameReady)}
    return [
        ready[e.replica, e.incarnation] - e.at_s
        for e in history.of(Spawned)
        if e.incarnation and (e.replica, e.incarnation) in ready
    ]


def tokens_per_s(history: History) -> float:
    """Tokens of right answers, a second."""
    right = [r for r in history.requests if r.outcome == OK]
    return sum(r.tokens for r in right) / (max(r.ended_s for r in right) - right[0].sent_s)


def run(spec: GraphSpec, line: str, folder: Path) -> LiveRun:
    """One run, and a line about it."""
    done = asyncio.run(run_live(spec, parse_plan("plan", line.split(";")), folder))
    took = ", ".join(f"{s:.2f} s" for s in respawns_s(done.history)) or "none"
    print(
        f"{spec.name}: {line}: {done.verdict.says}, start {done.start_s:.1f} s, run {done.live_s:.1f} s, "
        f"respawned {took}, {tokens_per_s(done.history):.0f} tokens/s",
        flush=True,
    )
    for text in (
        *done.verdict.causes,
        *(f"{v.signature}: {v.seen}" for v in done.verdict.violations[:4]),
    ):
        print(f"    {text}", flush=True)
    return done


def hoarding() -> GraphSpec:
    """The reference graph on GPUs with a prefill worker that keeps memory."""
    right = load_graph("reference-gpu")
    document = tomllib.loads(right.path.read_text(encoding="utf-8"))
    bug = Path(__file__).with_name("gpu_hoard.py")
    command = document["roles"]["prefill"]["command"]
    document["roles"]["prefill"]["command"] = command.replace(
        "-m graphquake.harness.reference.worker", f"'{bug}'"
    )
    return read_graph("hoard", document, right.path)


def main() -> None:
    """Run all plans of the graphs that are named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graphs", nargs="*", help=", ".join(PLANS))
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in options.graphs or PLANS:
            spec = load_graph(name, share_gpus=True)
            runs = [run(spec, line, Path(folder)) for line in PLANS[name]]
            wrong += sum(done.verdict.says != "kept" for done in runs)
            respawns = [s for done in runs for s in respawns_s(done.history)]
            print(
                f"{name}: medians: start {statistics.median(done.start_s for done in runs):.2f} s, "
                f"respawn {statistics.median(respawns):.2f} s, run {statistics.median(done.live_s for done in runs):.1f} s",
                flush=True,
            )

        found = run(replace(hoarding(), share_gpus=True), "burst 10 over 0.10 s", Path(folder))
        wrong += "no_leak / gpu memory" not in found.verdict.signatures
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()

"""What a graph that is opened ahead saves, beside one slot more: the toy graph with a start that mostly waits.

    tox -e bench -- bench_ahead [--start S] [--runs N]

Each row makes N runs on fresh graphs. All of them are begun at once, as a search begins them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from graphquake.harness.spec.plan import Plan
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.live_runner import LiveRunner

from support.toys import toy_spec

# The numbers of slots, and whether a graph may be opened ahead.
ROWS: Final = ((1, False), (1, True), (2, False), (2, True), (3, False))


def row(slots: int, start_s: float, runs: int, *, ahead: bool) -> str:
    """Make the runs of one row. Return its numbers as a line of a table."""
    with tempfile.TemporaryDirectory() as folder:
        spec = toy_spec(Path(folder), worker=f"--start-s {start_s:g}", within_s=60)
        with LiveRunner(spec, Path(folder) / "runs", Budget(600.0), slots=slots) as runner:
            runner._opens_ahead = ahead
            runner.run(Plan(()), "first")
            begun_s = time.monotonic()
            pending = [runner.start(Plan(()), "shrink") for _ in range(runs)]
            results = [runner.result(one) for one in pending]
            took_s = time.monotonic() - begun_s
    disturbed = sum(len(one.disturbed) for one in results)
    invalid = sum(one.verdict.kind == "invalid" for one in results)
    live_s = statistics.median(one.live_s for one in results)
    return f"| {slots} | {'yes' if ahead else 'no'} | {took_s / runs:.1f} s | {live_s:.1f} s | {disturbed} | {invalid} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=float, default=8.0, help="seconds of a start (8)")
    parser.add_argument("--runs", type=int, default=12, help="runs of each row (12)")
    options = parser.parse_args()
    print("| slots | ahead | wall time a run | a run | disturbed | invalid |")
    print("|--:|---|--:|--:|--:|--:|")
    for slots, ahead in ROWS:
        print(row(slots, options.start, options.runs, ahead=ahead), flush=True)


if __name__ == "__main__":
    main()

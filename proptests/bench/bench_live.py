"""Measure a live shrink with one slot and with two: `tox -e bench -- bench_live --times 3`.

Each turn searches a graph with a real bug until its first finding, with one slot and then with two, from the same seed. The measure is the
time from the first failure to the finding: reproduce, shrink, confirm, controls.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from graphquake.harness.spec.graph import load_graph
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.finding import Finding
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.rounds import Rounds
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.live_runner import LiveRunner
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import PendingRun, RunResult
from graphquake.machines.sessions.search import search

GRAPH = "dynamo-disagg-bootstrap"
BUDGET_S = 400.0


@dataclass(slots=True)
class Shrunk:
    """One live shrink.

    Attributes:
        took_s: the time from the first failure to the finding.
        runs: live runs of the shrink.
    """

    took_s: float
    runs: int
    plan: str


@dataclass
class Watch:
    """Notes when the first failing run ended."""

    first_s: float = 0.0
    found: list[Finding] = field(default_factory=list)

    def saw(self, outcome: RunResult) -> None:
        """Note the end of a run."""
        if outcome.verdict.kind == "broken" and not self.first_s:
            self.first_s = time.monotonic()


class WatchedRunner(LiveRunner):
    """A live runner that reports the end of each run to a `Watch`."""

    watcher: Watch

    def result(self, pending: PendingRun) -> RunResult:
        """Return a run's result, and report it."""
        outcome = super().result(pending)
        self.watcher.saw(outcome)
        return outcome


def shrink_once(graph: str, slots: int, seed: int) -> Shrunk | None:
    """Search until the first finding, or None if there is none."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runner = WatchedRunner(load_graph(graph), folder / "runs", Budget(BUDGET_S), slots=slots)
        runner.watcher = watch
        with runner:
            rounds = Rounds(
                FindingPipeline(runner, Corpus(folder / "cases"), RunLog(), results_dir=folder)
            )
            search(rounds, seed, findings_max=1)
    if not rounds.pipeline.findings:
        return None
    case = rounds.pipeline.findings[0].case
    took_s = time.monotonic() - watch.first_s
    return Shrunk(took_s, case.cost.live_runs, case.plan.one_line())


def main() -> None:
    """Make the turns and print how long each shrink took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", default=GRAPH)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    ratios = []
    for turn in range(arguments.times):
        one, two = (shrink_once(arguments.graph, slots, arguments.seed + turn) for slots in (1, 2))
        if one is None or two is None:
            print(f"turn {turn + 1}: no finding within {BUDGET_S:g} s")
            continue
        ratios.append(two.took_s / one.took_s)
        print(
            f"turn {turn + 1}: one slot {one.took_s:.0f} s, {one.runs} runs ({one.plan}); "
            f"two slots {two.took_s:.0f} s, {two.runs} runs ({two.plan}): {ratios[-1]:.2f}",
            flush=True,
        )
    if ratios:
        print(f"two slots take {statistics.median(ratios):.2f} of one slot's time (median)")


if __name__ == "__main__":
    main()

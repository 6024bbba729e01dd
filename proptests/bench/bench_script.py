"""Compare the search with a plain script of single faults and pairs: `tox -e bench -- bench_script dynamo-agg --budget 390`.

Each way gets the same graph and the same budget, one after the other. The search counts its confirmed findings. The script counts the plans
that broke the same promise in three of three runs (see `realbugs.script`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from graphquake.harness.spec.graph import load_graph
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.finding import Finding
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.rounds import Rounds
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.live_runner import LiveRunner
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.sessions.search import search

from realbugs.script import run_script

BUDGET_S: Final = 390.0
FINDINGS_MAX: Final = 100


@dataclass(slots=True)
class Row:
    """The result of one way on one graph.

    Attributes:
        found: the seconds from the start until it counted, the signature and the plan of each finding, and its broken and all fresh runs.
        unshrunk: the plans of findings that were not confirmed in time.
        runs, live_s, invalid: the number of live runs, the sum of their seconds, and the number of those that were invalid.
        slots: the number of graphs side by side at the end.
    """

    graph: str
    way: str
    found: list[tuple[float, str, str, str]] = field(default_factory=list)
    unshrunk: list[str] = field(default_factory=list)
    runs: int = 0
    live_s: float = 0.0
    invalid: int = 0
    slots: int = 1

    def finish(self, log: RunLog, runner: LiveRunner) -> Row:
        """Enter the counts of the log."""
        self.runs, self.live_s = log.live.total(), round(log.live_s, 1)
        self.invalid, self.slots = log.live["invalid"], runner.slots
        log.close()
        return self

    def lines(self) -> list[str]:
        """The row as text, with a line for each finding."""
        head = (
            f"{self.graph} {self.way}: {len(self.found)} confirmed, {len(self.unshrunk)} unshrunk, {self.runs} runs "
            f"({self.invalid} invalid), {self.slots} slots"
        )
        return [head, *("  {:.0f} s  {}  {}: {}".format(*one) for one in self.found)]


def by_search(graph: str, budget_s: float, seed: int, folder: Path) -> Row:
    """Search with the default options."""
    begun_s, row = time.monotonic(), Row(graph, "search")

    held_s: dict[int, float] = {}

    def hold(finding: Finding) -> None:
        held_s[id(finding.original.history)] = time.monotonic() - begun_s

    def note(finding: Finding) -> None:
        case = finding.case
        counts = f"{case.observed[-1].broke} of {case.observed[-1].runs}"
        if case.status == "open":
            at_s = held_s.get(id(finding.original.history), time.monotonic() - begun_s)
            row.found.append((at_s, counts, str(case.signature), case.plan.one_line()))
        else:
            row.unshrunk.append(f"{case.status}: {case.signature}: {case.plan.one_line()}")

    log = RunLog(folder / "journal.jsonl")
    runner = LiveRunner(load_graph(graph), folder / "runs", Budget(budget_s), slots=None)
    with runner:
        pipeline = FindingPipeline(
            runner, Corpus(folder / "cases"), log, results_dir=folder, on_finding=note, on_held=hold
        )
        search(Rounds(pipeline), seed, findings_max=FINDINGS_MAX)
    return row.finish(log, runner)


def by_script(graph: str, budget_s: float, folder: Path) -> Row:
    """Run the plain script."""
    begun_s, row = time.monotonic(), Row(graph, "script")
    log = RunLog(folder / "journal.jsonl")
    runner = LiveRunner(load_graph(graph), folder / "runs", Budget(budget_s))
    with runner:
        for one in run_script(runner, log):
            at_s = time.monotonic() - begun_s
            row.found.append((at_s, "3 of 3", str(one.signatures[0]), one.plan.one_line()))
    return row.finish(log, runner)


def main() -> None:
    """Run both ways on each graph that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graphs", nargs="+", help="names or files of graphs")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds for each way")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--way", choices=["search", "script"], help="only this way")
    parser.add_argument("--folder", type=Path, help="where the journals and rows go")
    asked = parser.parse_args()
    root = asked.folder or Path(tempfile.mkdtemp())
    for graph in asked.graphs:
        for way in [asked.way] if asked.way else ["search", "script"]:
            folder = root / f"{Path(graph).stem}-{way}"
            row = (
                by_search(graph, asked.budget, asked.seed, folder)
                if way == "search"
                else by_script(graph, asked.budget, folder)
            )
            (folder / "row.json").write_text(json.dumps(asdict(row), indent=1) + "\n")
            print("\n".join(row.lines()), flush=True)


if __name__ == "__main__":
    main()

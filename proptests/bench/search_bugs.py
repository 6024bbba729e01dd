"""Search for each planted bug: `tox -e bugs`.

Each bug gets one search for each seed. A row shows the live runs until the first failure, the minimal plan beside the plan found by hand,
and the cost of the shrink. A search stops at its first finding. A finding that breaks another promise than those of the bug fails the
row. The row `none` is the graph without a bug, where any finding fails. Two searches go side by side. Finished searches are saved in
`results.json`, and the next call does not repeat them.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from graphquake.harness.run.early_verdict import Enough
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.finding import Finding
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.rounds import Rounds
from graphquake.machines.runners.budget import Budget, BudgetSpent
from graphquake.machines.runners.live_runner import LiveRunner
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import PendingRun
from graphquake.machines.sessions.search import search

from bench.jobs import run_jobs
from support.planted import Bug, no_bug, planted

SEARCH_RUNS_MAX: Final = 60
SEARCH_MAX_S: Final = 1200.0
NO_BUG: Final = "none"
FOLDER: Final = Path(".graphquake/bugs")


@dataclass(slots=True)
class Row:
    """The result of one search.

    Attributes:
        runs, live_s: live runs and seconds until the first failure, or all of them if there was none.
        found: true if only the bug was found. For the graph without a bug: true if the search made no findings.
        plan, by_hand: the lines of the minimal plan that was found, and of the plan found by hand.
        shrink_runs: live runs from the first failure to the end of the confirmation.
        confirmed_s: live seconds until the finding counted. More runs may follow, up to ten of its plan.
        broke, of: how many of how many fresh runs of the minimal plan broke.
        others: signatures that are not the bug's.
    """

    bug: str
    seed: int
    found: bool = False
    runs: int = 0
    live_s: float = 0.0
    signature: str = ""
    plan: list[str] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)
    shrink_runs: int = 0
    shrink_s: float = 0.0
    confirmed_s: float = 0.0
    broke: int = 0
    of: int = 0
    invalid: int = 0
    others: list[str] = field(default_factory=list)

    @property
    def is_minimal(self) -> bool:
        """True if the plan that was found is as short as the plan found by hand."""
        return len(self.plan) <= len(self.by_hand)


class CappedRunner(LiveRunner):
    """A runner with a limit on the live runs of the search, without those of shrinks."""

    searched = 0

    def start(
        self,
        plan: Plan,
        why: str,
        *,
        enough: Enough | None = None,
        may_reuse: bool = False,
        patient: bool = True,
        spec: GraphSpec | None = None,
    ) -> PendingRun:
        """See `Runner.start`."""
        if why == "search":
            if self.searched >= SEARCH_RUNS_MAX:
                raise BudgetSpent
            self.searched += 1
        return super().start(
            plan, why, enough=enough, may_reuse=may_reuse, patient=patient, spec=spec
        )


def search_one(bug: Bug, seed: int, folder: Path, slots: int = 1) -> Row:
    """Search for one bug from one seed."""
    row = Row(bug.name or NO_BUG, seed, by_hand=bug.plan.lines())
    journal = RunLog(folder / "journal.jsonl")

    def note(finding: Finding) -> None:
        if finding.counts and finding.case.promise in bug.breaks and not row.confirmed_s:
            row.confirmed_s = round(journal.live_s, 1)

    with CappedRunner(bug.spec, folder / "runs", Budget(SEARCH_MAX_S), slots=slots) as runner:
        rounds = Rounds(
            FindingPipeline(
                runner,
                Corpus(folder / "cases"),
                journal,
                results_dir=folder,
                on_finding=note,
                on_held=note,
            )
        )
        search(rounds, seed, findings_max=1)
    journal.close()
    row.runs, row.live_s = journal.live.total(), round(rounds.log.live_s, 1)
    row.invalid = journal.live["invalid"]
    for finding in rounds.pipeline.findings:
        _enter(row, bug, finding)
    row.found = bool(row.plan) if bug.name else not rounds.pipeline.findings
    row.found = row.found and not row.others
    return row


def _enter(row: Row, bug: Bug, finding: Finding) -> None:
    case = finding.case
    row.runs -= case.cost.live_runs
    row.live_s = round(row.live_s - case.cost.live_s, 1)
    row.shrink_runs += case.cost.live_runs
    row.shrink_s += case.cost.live_s
    if case.promise in bug.breaks:
        # An unconfirmed violation is the same bug, at a low rate. The search goes on.
        if finding.counts:
            row.signature, row.plan = str(case.signature), case.plan.lines()
            row.broke, row.of = case.observed[-1].broke, case.observed[-1].runs
    else:
        row.others.append(f"{case.signature} ({case.status}): {case.plan.one_line()}")


def search_all(
    names: list[str], seeds: list[int], folder: Path, side_by_side: int, slots: int
) -> list[Row]:
    """Search for all bugs from all seeds. Searches that an earlier call finished are not repeated."""
    results = folder / "results.json"
    rows = [Row(**row) for row in json.loads(results.read_text())] if results.exists() else []
    done = {(row.bug, row.seed) for row in rows}
    jobs = [(name, seed) for seed in seeds for name in names if (name, seed) not in done]

    def arguments_of(job: tuple[str, int]) -> list[str]:
        name, seed = job
        own = str(folder / f"{name}-{seed}")
        return ["-m", "bench.search_bugs", name, "--seed", str(seed), "--slots", str(slots), "--one", own]  # fmt: skip

    def take(job: tuple[str, int], said: dict[str, Any], took_s: float) -> None:
        del job
        rows.append(Row(**said))
        results.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
        print(f"{took_s:4.0f} s", line(rows[-1]), flush=True)

    folder.mkdir(parents=True, exist_ok=True)
    run_jobs(jobs, arguments_of, take, side_by_side)
    return rows


def line(row: Row) -> str:
    """Return one search as a line of text."""
    says = "found" if row.found and row.bug != NO_BUG else "kept" if row.found else "MISSED"
    if row.others:
        says = f"WRONG: {'; '.join(row.others)}"
    text = f"{row.bug} {row.seed}: {says}, {row.runs} runs"
    if row.plan:
        length = "minimal" if row.is_minimal else f"{len(row.plan)} steps for {len(row.by_hand)}"
        text += f", {length} after {row.shrink_runs} more, {row.broke} of {row.of}: {'; '.join(row.plan)}"
    return text


def table(rows: list[Row]) -> str:
    """Return a Markdown table with a line for each bug over all seeds, and how many searches found their bug."""
    lines = [
        "| bug | found | runs to the first failure | counted after, s | shrink | as short as by hand | broke | the plan by hand |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted({row.bug for row in rows}, key=lambda name: (name != NO_BUG, name)):
        of = [row for row in rows if row.bug == name]
        hits = [row for row in of if row.plan]
        lines.append(
            f"| {name} | {sum(row.found for row in of)} of {len(of)} "
            f"| {_middle([row.runs for row in of])} | {_middle([round(row.confirmed_s) for row in hits])} "
            f"| {_middle([row.shrink_runs for row in hits])} "
            f"| {f'{sum(row.is_minimal for row in hits)} of {len(hits)}' if hits else ''} "
            f"| {f'{sum(r.broke for r in hits)} of {sum(r.of for r in hits)}' if hits else ''} "
            f"| {'; '.join(of[0].by_hand)} |"
        )
    bugs = [row for row in rows if row.bug != NO_BUG]
    hits = [row for row in bugs if row.plan]
    found, short = sum(row.found for row in bugs), sum(row.is_minimal for row in hits)
    lines.append(
        f"\n{found} of {len(bugs)} searches found their bug within {SEARCH_RUNS_MAX} live runs; "
        f"{short} of {len(hits)} plans are as short as the one by hand."
    )
    return "\n".join(lines)


def _middle(values: list[int]) -> str:
    """Return the median and the range of some values as text."""
    if not values:
        return ""
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]} ({ordered[0]} to {ordered[-1]})"


def main() -> None:
    """Search for the bugs that are named, or for all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bugs", nargs="*", help=f"names; {NO_BUG} is the graph without a bug")
    parser.add_argument("--seed", type=int, action="append", help="may be repeated (1)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where results go")
    parser.add_argument("--fresh", action="store_true", help="forget what was done before")
    parser.add_argument("--side-by-side", type=int, default=2, help="searches at once")
    parser.add_argument("--slots", type=int, default=1, help="graphs side by side in one search")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    bugs = {NO_BUG: no_bug()} | planted()
    names = options.bugs or list(bugs)
    if unknown := set(names) - bugs.keys():
        parser.error(f"no such bug: {', '.join(sorted(unknown))}; there are {', '.join(bugs)}")
    seeds = options.seed or [1]
    if options.one:
        row = search_one(bugs[names[0]], seeds[0], options.one, options.slots)
        print(json.dumps(asdict(row)))
        return
    if options.fresh:
        (options.folder / "results.json").unlink(missing_ok=True)
    rows = search_all(names, seeds, options.folder, options.side_by_side, options.slots)
    print(table(rows))
    wanted = {(name, seed) for name in names for seed in seeds}
    done = [row for row in rows if (row.bug, row.seed) in wanted]
    sys.exit(len(done) < len(wanted) or not all(row.found for row in done))


if __name__ == "__main__":
    main()

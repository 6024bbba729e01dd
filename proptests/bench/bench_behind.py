"""Measure, live, whether a known case hides a second bug whose plan contains the case: `tox -e bench -- bench_behind --seeds 5`.

One graph has two planted bugs. The first shows at every `kill decode`, the second at `kill decode` with `kill prefill` soon after. The
first is searched for until it is a case. Then the second is searched for twice from each seed. One search is in a graph with this bug
alone. The other is in the graph with both bugs, and the case is known. The measure is the number of live runs until the second bug shows.
It is not shrunk. Violations
of the first bug that its case does not explain (after `kill decode 0 rank`, for example) are ignored.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from graphquake.harness.promises.verdict import Violation
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.finding import Finding
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.rounds import Rounds
from graphquake.machines.runners.budget import Budget, BudgetSpent
from graphquake.machines.runners.live_runner import LiveRunner
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import RunResult
from graphquake.machines.sessions.search import search
from graphquake.machines.shrinking.trials import Count

from support.planted import planted, together

FIRST: Final = "stale_lock"
SECOND: Final = "two_roles"
NAME: Final = "two-bugs"
BUDGET_S: Final = 300.0


@dataclass(slots=True)
class Meeting(FindingPipeline):
    """A pipeline that ends the search at the first violation of some promises.

    Attributes:
        wanted: those promises.
    """

    wanted: tuple[str, ...] = ()
    met: list[Violation] = field(default_factory=list)

    def find(
        self,
        plan: Plan,
        first: RunResult,
        violation: Violation,
        *,
        earlier: Count | None = None,
        held: Finding | None = None,
    ) -> Finding | None:
        """End the search if a run shows a wanted violation. Otherwise do not make a finding."""
        del plan, violation, earlier, held
        self.met += [one for one in self.excuses.unexplained(first) if one.promise in self.wanted]
        if self.met:
            raise BudgetSpent
        return None


def runs_until_met(
    spec: GraphSpec, wanted: tuple[str, ...], seed: int, folder: Path
) -> tuple[int, str]:
    """Search until a wanted promise is broken in a way that no case explains. Returns the live runs and the signature."""
    with LiveRunner(spec, folder / "runs", Budget(BUDGET_S)) as runner:
        cases = Corpus(folder / "cases")
        # With `shrink_any`, no plan is held: each first failure goes to `find`.
        meeting = Meeting(
            runner, cases, RunLog(), results_dir=folder, shrink_any=True, wanted=wanted
        )
        search(Rounds(meeting), seed, findings_max=1)
    return meeting.log.live.total(), str(meeting.met[0].signature) if meeting.met else "nothing"


def main() -> None:
    """Search for both bugs, and print the numbers of runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(1, parser.parse_args().seeds + 1)
    first, second = planted()[FIRST], planted()[SECOND]
    counts = {"alone": 0, "behind": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with LiveRunner(together(NAME, first), folder / "runs", Budget(BUDGET_S)) as runner:
            rounds = Rounds(
                FindingPipeline(runner, Corpus(folder / "known"), RunLog(), results_dir=folder)
            )
            search(rounds, 1, findings_max=1)
        print(f"known: {rounds.pipeline.findings[0].case.title}", flush=True)
        both = together(NAME, first, second)
        for seed in seeds:
            shutil.copytree(folder / "known", folder / f"{seed}" / "behind" / "cases")
            for which, spec in (("alone", together(NAME, second)), ("behind", both)):
                runs, met = runs_until_met(spec, second.breaks, seed, folder / f"{seed}" / which)
                counts[which] += runs
                print(f"seed {seed}, {which}: {runs} runs, {met}", flush=True)
    ratio = counts["behind"] / counts["alone"]
    print(f"{counts['behind']} runs behind the case, {counts['alone']} alone: {ratio:.2f}")


if __name__ == "__main__":
    main()

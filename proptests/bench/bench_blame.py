"""Measure what fault localization saves a shrink: `tox -e bench -- bench_blame FOLDER`, after `tox -e bugs`.

Each search for a planted bug leaves the first failing run and the minimal plan. This benchmark shrinks that first plan again in simulation:
a plan breaks the promise if the minimal plan embeds in it. It does so without weights, with the weights from the history, and with wrong
weights: the inverse of them.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from graphquake.harness.history.history import History
from graphquake.harness.promises.judgement import judge
from graphquake.harness.promises.verdict import Violation
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.fault_localization import blame
from graphquake.machines.findings.sightings import last_step
from graphquake.machines.shrinking.shrink import shrink
from graphquake.machines.shrinking.trials import Trial

from support.embedding import complete_at

SEEDS: Final = 5


@dataclass(frozen=True, slots=True)
class First:
    """A first failure and its minimal plan.

    Attributes:
        shown: its violation with the signature of the case.
    """

    history: History
    shown: Violation
    minimal: Plan


def firsts(folder: Path) -> Iterator[First]:
    """Yield the first failures that the searches in a folder left."""
    for cases in sorted(folder.glob("*/cases")):
        for case in Corpus(cases):
            run = cases.parent / case.id / "original"
            if not (run / "events.jsonl").is_file():
                continue
            history = History.load(run)
            for violation in judge(history).violations:
                if violation.signature == case.signature:
                    yield First(history, violation, case.plan)
                    break


@dataclass(frozen=True, slots=True)
class Cost:
    """The live runs until the minimal plan was first reached, and all live runs of the shrink."""

    until_held: int
    runs: int


def cost(first: First, weights: tuple[float, ...], rate: float, seed: int) -> Cost:
    """Shrink the plan of a first failure again and return what that cost."""
    chance = random.Random(seed)

    def run(plan: Plan) -> Trial:
        ends = complete_at(first.minimal, plan)
        shows = ends is not None and chance.random() < rate
        return Trial("broken", ends) if shows and ends is not None else Trial("kept")

    history = first.history
    begun = Trial("broken", last_step(history, first.shown.at_s), weights)
    one = shrink(history.spec, history.plan, begun, run)
    steps = len(one.plan.steps)
    held = (
        number
        for number, tried in enumerate(one.journal, 1)
        if tried.trial.kind == "broken" and len(tried.plan.steps) == steps
    )
    return Cost(next(held, len(one.journal)), len(one.journal))


def main() -> None:
    """Shrink every first failure with each kind of weights, and print a table of the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+")
    found = [first for folder in parser.parse_args().folder for first in firsts(folder)]
    print(
        f"{len(found)} first failures; live runs until the minimal plan is first held, and all (means)\n"
    )
    print("| weights | rate 1 | | rate .6 | |\n|---|--:|--:|--:|--:|")
    for name, power in (("none", 0), ("of the history", 1), ("the inverse", -1)):
        cells = []
        for rate, seeds in ((1.0, 1), (0.6, SEEDS)):
            costs = [
                cost(first, tuple(w**power for w in blame(first.history, first.shown)), rate, seed)
                for first in found
                for seed in range(seeds)
            ]
            cells.append(f"{statistics.mean(one.until_held for one in costs):.1f}")
            cells.append(f"{statistics.mean(one.runs for one in costs):.1f}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

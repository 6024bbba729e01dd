"""Compare the shrinker with plain Hypothesis, ddmin and ProbDD: `tox -e bench -- bench_shrink`.

Everything is simulated and deterministic: ten bugs, four rates at which they show, twenty plans each. Each way of shrinking begins with a
run that failed. Counted are the live runs after it, and the seconds that they would take (see `costs`):

- A: the runs until a plan with the final steps first broke.
- B: all runs except those that only give evidence (controls, single removals, other replicas).
- C: all runs.

Results go to a JSON file. Rows of ways that were not asked for this time stay in it and in the tables: Hypothesis alone takes twenty
minutes of a core, slots an hour, everything else two minutes. With `--check` the command fails if the shrinker misses a wanted number.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Final

from bench.bench_judge import MEASUREMENTS, SPREAD
from bench.costs import Costs
from bench.interactive import AsItComes
from bench.measured import Row, row_of
from bench.shrink_tables import checks, shapes_table, ways_table
from bench.ways import Ddmin, FourSlots, Ours, ProbDD, TwoSlots, Way
from support.simulated import SHAPES, Simulated, failing

# A new way of shrinking is a new line here.
WAYS: Final[dict[str, Callable[[Costs], Way]]] = {
    "hypothesis": AsItComes,
    "ddmin": Ddmin,
    "ProbDD": ProbDD,
    "ours": Ours,
    "ours, 2 slots": TwoSlots,
    "ours, 4 slots": FourSlots,
}
SLOWEST_FIRST: Final = ("ours, 4 slots", "ours, 2 slots", "hypothesis", "ours", "ddmin", "ProbDD")
RATES: Final = (1.0, 0.9, 0.6, 0.3)
SEEDS: Final = 20
FILE: Final = Path(".graphquake/bench-shrink.json")


@dataclass(frozen=True, slots=True)
class Task:
    """All shrinks of one bug at one rate with one way."""

    way: str
    rate: float
    shape: int


def measure(task: Task, seeds: int, costs: Costs) -> tuple[list[Row], float]:
    """Make the shrinks of a task. Returns their rows and the seconds that they took."""
    way, shape, begun_s = WAYS[task.way](costs), SHAPES[task.shape], time.monotonic()
    rows = []
    for seed in range(seeds):
        graph = Simulated(shape, seed, task.rate, runs_max=way.runs_max)
        result = way(shape, failing(shape, seed), graph)
        rows.append(row_of(task.way, shape, task.rate, seed, result))
    return rows, time.monotonic() - begun_s


def _read(file: Path, costs: Costs, ways: Sequence[str]) -> tuple[list[Row], dict[str, float]]:
    """Return the rows of other ways from the results file, if they were made at the same costs, and how long they took."""
    if not file.exists():
        return [], {}
    held: dict[str, Any] = json.loads(file.read_text())
    if held["costs"] != asdict(costs):
        return [], {}
    rows = [Row(**row) for row in held["rows"] if row["way"] not in ways and row["way"] in WAYS]
    return rows, {way: took_s for way, took_s in held["took_s"].items() if way not in ways}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"plans of each bug ({SEEDS})")
    parser.add_argument("--json", type=Path, default=FILE, help=f"where results go ({FILE})")
    parser.add_argument("--start-s", type=float, default=Costs().start_s, help="see `Costs`")
    parser.add_argument("--after-s", type=float, default=Costs().after_s, help="see `Costs`")
    parser.add_argument("--check", action="store_true", help="fail if ours is not as wanted")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once")
    parser.add_argument("--no-further", action="store_true", help="only the shrinks")
    return parser.parse_args()


def main() -> None:
    """Measure, save and print. Check the wanted numbers if asked to."""
    options = _options()
    costs = Costs(start_s=options.start_s, after_s=options.after_s)
    rows, took_s = _read(options.json, costs, options.ways)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    further_rows: list[dict[str, Any]] = []

    def keep() -> None:
        held = {
            "costs": asdict(costs),
            "took_s": took_s,
            "further": further_rows,
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(held, indent=1) + "\n")

    tasks = [
        Task(way, rate, shape)
        for way in sorted(options.ways, key=SLOWEST_FIRST.index)
        for rate in options.rates
        for shape in range(len(SHAPES))
    ]
    with ProcessPoolExecutor(options.jobs) as pool:
        found = pool.map(measure, tasks, repeat(options.seeds), repeat(costs))
        others = [] if options.no_further else [pool.submit(one) for one in MEASUREMENTS]
        spread = [] if options.no_further else [one(pool.map) for one in SPREAD]
        for task, (own, own_s) in zip(tasks, found, strict=True):
            rows += own
            took_s[task.way] = round(took_s.get(task.way, 0.0) + own_s, 1)
            if task.shape == len(SHAPES) - 1:
                keep()
                print(f"{task.way} at {task.rate:g}", file=sys.stderr, flush=True)
        further_rows += [asdict(one) for one in (*(other.result() for other in others), *spread)]
    keep()
    order = [way for way in WAYS if any(row.way == way for row in rows)]
    print(ways_table(rows, order), shapes_table(rows, order), sep="\n\n")
    print(
        "\nSeconds of a core: " + ", ".join(f"{way} {took_s[way]:.0f} s" for way in order) + ".\n"
    )
    for one in further_rows:
        print(f"- {one['text']}")
    if options.check:
        wanted = checks(rows)
        print(*(f"- {one}" for one in wanted), sep="\n")
        missed = [one for one in wanted if one.is_met is False]
        sys.exit(bool(missed) or not all(one["is_met"] for one in further_rows))


if __name__ == "__main__":
    main()

"""What the shrinker is worth, against Hypothesis as it comes, ddmin and ProbDD. `tox -e bench-shrink`.

On simulated graphs, in no time and without chance from outside: ten bugs, four rates at which they show, twenty plans each. Each way begins
with a run that failed; counted are the live runs after it, and the seconds that they would take (`costs`). A: until a plan of the final
steps was first seen to break. B: all but mere evidence (controls, single removals, other replicas). C: all.

Results go to a JSON file. Rows of ways that were not asked for this time stay in it and in the tables: Hypothesis alone takes twenty
minutes, everything else one and a half, and it does not change with ours. With `--check` it fails if ours is not what it is wanted to be.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench_judge import further
from costs import Costs
from interactive import AsItComes
from measured import Row, row_of
from shrink_tables import checks, shapes_table, ways_table
from simulated import SHAPES, Simulated, failing
from ways import Ddmin, FourSlots, Ours, ProbDD, TwoSlots, Way

# A further way is a further line here.
WAYS: Final[dict[str, Callable[[Costs], Way]]] = {
    "hypothesis": AsItComes,
    "ddmin": Ddmin,
    "ProbDD": ProbDD,
    "ours": Ours,
    "ours, 2 slots": TwoSlots,
    "ours, 4 slots": FourSlots,
}
RATES: Final = (1.0, 0.9, 0.6, 0.3)
SEEDS: Final = 20
FILE: Final = Path(".graphquake/bench-shrink.json")


def measure(name: str, rates: Sequence[float], seeds: int, costs: Costs) -> list[Row]:
    """All shrinks of one way."""
    way = WAYS[name](costs)
    rows = []
    for rate in rates:
        for shape in SHAPES:
            for seed in range(seeds):
                graph = Simulated(shape, seed, rate, runs_max=way.runs_max)
                result = way(shape, failing(shape, seed), graph)
                rows.append(row_of(name, shape, rate, seed, result))
    return rows


def _read(file: Path, costs: Costs, ways: Sequence[str]) -> tuple[list[Row], dict[str, float]]:
    """The rows of other ways in a file, if they were made at the same costs; and how long those took."""
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
    parser.add_argument("--no-further", action="store_true", help="only the shrinks")
    return parser.parse_args()


def main() -> None:
    """Measure, keep, print, and perhaps check."""
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

    # Hypothesis takes by far the longest, so it goes last; what is done is kept.
    for way in sorted(options.ways, key=lambda name: name == "hypothesis"):
        begun_s = time.monotonic()
        rows += measure(way, options.rates, options.seeds, costs)
        took_s[way] = round(time.monotonic() - begun_s, 1)
        keep()
        print(f"{way}: {took_s[way]:.0f} s", file=sys.stderr, flush=True)
    if not options.no_further:
        further_rows += [asdict(one) for one in further()]
        keep()
    order = [way for way in WAYS if any(row.way == way for row in rows)]
    print(ways_table(rows, order), shapes_table(rows, order), sep="\n\n")
    print("\nTook: " + ", ".join(f"{way} {took_s[way]:.0f} s" for way in order) + ".\n")
    for one in further_rows:
        print(f"- {one['text']}")
    if options.check:
        wanted = checks(rows)
        print(*(f"- {one}" for one in wanted), sep="\n")
        sys.exit(any(one.is_met is False for one in wanted))


if __name__ == "__main__":
    main()

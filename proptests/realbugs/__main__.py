"""Look for real bugs in the releases that have them: `tox -e realbugs`.

Each entry is searched once for each seed, in the release with the bug and in the one without it. The baselines look for the same bugs with
the same budget. A search ends when its bug is found. Each search is a process of its own. Finished searches are saved in `results.json`,
and the next call does not repeat them. `results.md` holds the table.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple

from graphquake.harness.errors import GraphquakeError
from graphquake.machines.runners.budget import parse_limit

from bench.jobs import run_jobs
from realbugs.entries import Entry, read_entries
from realbugs.environments import EnvironmentFailedError, cache_folder, python_of
from realbugs.rows import Row, line, table
from realbugs.ways import COMPARED, FIXED, ON_BOTH, WAYS, Job

FOLDER: Final = Path(".graphquake/realbugs")
BUDGET: Final = "10m,60runs"
# Searches side by side disturb each other's clocks, so there is one at a time by default.
SIDE_BY_SIDE: Final = 1


class Key(NamedTuple):
    """One search: what tells its row apart."""

    entry: str
    way: str
    release: str
    seed: int


def keys_of(
    entries: dict[str, Entry], ways: list[str], releases: list[str], seeds: list[int]
) -> list[Key]:
    """Return the searches to make. A baseline gets only the release with the bug, and a way without chance only one seed."""
    return [
        Key(name, way, release, seed)
        for seed in seeds
        for name, entry in entries.items()
        for way in ways
        for release in entry.releases()
        if release in releases
        if way in ON_BOTH or release == "before"
        if way not in FIXED or seed == seeds[0]
    ]


def look(key: Key, entry: Entry, options: argparse.Namespace) -> Row:
    """Make one search in this process. An environment or a graph that does not start ends it, and the row says so."""
    folder = options.one
    row = Row(*key[:3], entry.releases()[key.release].name, key.seed)
    try:
        python = python_of(entry.releases()[key.release], options.environments)
        if python is not None:
            # Commands of the graph file, such as `etcd`, may be programs of the release.
            os.environ["PATH"] = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
        job = Job(
            entry, entry.spec(key.release, python), key.release, key.seed,
            parse_limit(options.budget), folder, options.slots, options.runs,
        )  # fmt: skip
        return WAYS[key.way](job)
    except (EnvironmentFailedError, GraphquakeError) as error:
        row.error = str(error)
        return row


def look_for_all(keys: list[Key], options: argparse.Namespace) -> list[Row]:
    """Make all searches, except those that an earlier call has finished. Save each row as soon as it is there."""
    results = options.folder / "results.json"
    saved = json.loads(results.read_text(encoding="utf-8")) if results.exists() else []
    rows = [Row.of_json(one) for one in saved]
    done = {row.key for row in rows if not row.error}
    rows = [row for row in rows if row.key in done]

    def arguments_of(key: Key) -> list[str]:
        own = options.folder / "-".join(map(str, key))
        return [
            "-m", "realbugs", key.entry, "--way", key.way, "--release", key.release, "--seed", str(key.seed),
            "--budget", options.budget, "--slots", str(options.slots), "--runs", str(options.runs),
            "--environments", str(options.environments), "--one", str(own),
        ]  # fmt: skip

    def take(key: Key, said: dict[str, Any], took_s: float) -> None:
        del key
        rows.append(Row.of_json(said))
        results.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", "utf-8")
        print(f"{took_s:4.0f} s", line(rows[-1]), flush=True)

    options.folder.mkdir(parents=True, exist_ok=True)
    run_jobs([key for key in keys if key not in done], arguments_of, take, options.side_by_side)
    return [row for row in rows if row.key in set(keys)]


def parser_of(names: list[str]) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="realbugs", description=__doc__)
    parser.add_argument("entries", nargs="*", help=f"names of entries (all): {', '.join(names)}")
    parser.add_argument(
        "--way",
        action="append",
        choices=list(WAYS),
        help=f"may be repeated ({', '.join(COMPARED)})",
    )
    parser.add_argument(
        "--release", action="append", choices=["before", "after"],
        help="the release with the bug, or the one without it; may be repeated (both)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, action="append", help="may be repeated (1)")
    parser.add_argument("--budget", default=BUDGET, help=f"of each search ({BUDGET})")
    parser.add_argument("--slots", type=int, default=1, help="graphs side by side in a search (1)")
    parser.add_argument("--runs", type=int, default=5, help="of the plan by hand, --way hand (5)")
    parser.add_argument(
        "--side-by-side", type=int, default=SIDE_BY_SIDE, help="searches at once (1)"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"of the results ({FOLDER})")
    parser.add_argument(
        "--environments", type=Path, default=cache_folder(), help="of the environments"
    )
    parser.add_argument("--fresh", action="store_true", help="forget what was done before")
    parser.add_argument("--list", action="store_true", help="list the entries and end")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    """Look for the bugs that are named, or for all."""
    known = read_entries()
    parser = parser_of(list(known))
    options = parser.parse_args()
    if unknown := set(options.entries) - known.keys():
        parser.error(f"no such entry: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    try:
        parse_limit(options.budget)
    except ValueError as error:
        parser.error(f"--budget: {error}")
    entries = {name: known[name] for name in options.entries or known}
    if options.list:
        for name, entry in entries.items():
            print(
                f"{name}: {entry.before.name}: {entry.plan.one_line()}: {entry.broke} of {entry.of}"
            )
        return
    keys = keys_of(
        entries,
        options.way or list(COMPARED),
        options.release or ["before", "after"],
        options.seed or [1],
    )
    if options.one:
        print(json.dumps(asdict(look(keys[0], entries[keys[0].entry], options))))
        return
    if options.fresh:
        (options.folder / "results.json").unlink(missing_ok=True)
    rows = look_for_all(keys, options)
    said = table(rows)
    (options.folder / "results.md").write_text(f"{said}\n", encoding="utf-8")
    print(said)
    wrong = any(row.error or (row.release == "after" and row.found) for row in rows)
    sys.exit(len(rows) < len(keys) or wrong)


if __name__ == "__main__":
    main()

"""The options of `pytest --chaos`: what they are called, and what was asked for with them.

It is imported by every pytest of everybody who has graphquake installed, so importing it costs nothing.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from graphquake.machines.runners.budget import UNLIMITED, Limit, parse_limit

if TYPE_CHECKING:
    from graphquake.machines.sessions.session import Options

BUDGET: Final = "10m"
# More graphs than that do not fit on a machine; what is meant is another option.
SLOTS_MAX: Final = 64


def add_options(group: pytest.OptionGroup) -> None:
    """Add all of them."""
    group.addoption(
        "--chaos", action="store_true", help="search for fault sequences that break promises"
    )
    group.addoption(
        "--graph",
        action="append",
        default=[],
        metavar="NAME|FILE",
        help="graph to test: a ready-made one or a TOML file; may be given more than once (reference and dynamo-disagg)",
    )
    group.addoption(
        "--share-gpus",
        action="store_true",
        help="replicas may be given the same GPUs where there are not enough",
    )
    group.addoption(
        "--chaos-budget",
        default=BUDGET,
        metavar="T",
        help=f"live time of all graphs together, live runs (200runs), or both with a comma ({BUDGET})",
    )
    group.addoption(
        "--shrink-budget",
        default="",
        metavar="T",
        help="the same for each shrink; what is not minimal by then is kept as unshrunk, and gone on with the next time",
    )
    group.addoption(
        "--replay-budget",
        default="",
        metavar="T",
        help="the same for the replay of each case (half of what is left)",
    )
    group.addoption(
        "--slots",
        type=int,
        default=1,
        metavar="K",
        help="graphs that run side by side, to draw and to shrink (1); with GPUs, each needs its own",
    )
    group.addoption(
        "--shrink-any",
        action="store_true",
        help="shrink to whatever breaks any promise, not only to what breaks the same one in the same way",
    )
    group.addoption(
        "--chaos-max-findings",
        type=int,
        default=3,
        metavar="N",
        help="stop a graph's search after N new findings (3)",
    )
    group.addoption(
        "--chaos-corpus",
        metavar="DIR",
        help="folder of the cases (default: `regressions` beside the graph file)",
    )
    group.addoption(
        "--results-dir",
        default=".graphquake",
        metavar="DIR",
        help="where journals, runs and summaries go (.graphquake)",
    )
    group.addoption(
        "--report-dir",
        metavar="DIR",
        help="summaries, tables and pages once more, in a folder for CI to keep",
    )
    group.addoption(
        "--keep-failed",
        action="store_true",
        help="of runs, of which 2 GiB are kept, never drop a broken or invalid one",
    )
    group.addoption(
        "--dry-run",
        action="store_true",
        help="draw and print plans and their victims; start nothing",
    )
    # pytest has a --strict of its own (about markers); given with --chaos it means ours, too.
    with contextlib.suppress(ValueError):
        group.addoption("--strict", action="store_true", help="an unconfirmed finding fails, too")
    group.addoption(
        "--strict-known", action="store_true", help="a known case that is perhaps fixed fails"
    )


def limit_of(config: pytest.Config, option: str) -> Limit:
    """The limit that an option gives.

    Raises:
        InputError: if it gives none.
    """
    from graphquake.harness.errors import InputError  # noqa: PLC0415

    text = config.getoption(option)
    try:
        return parse_limit(text) if text else UNLIMITED
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None


def _any_seed(config: pytest.Config) -> int:
    """One that nobody gave: all processes of a run agree upon it."""
    run = getattr(config, "workerinput", {}).get("testrunuid")
    chance = random.Random(run) if run else random.SystemRandom()
    return chance.randrange(1_000_000)


def options(config: pytest.Config, shard: int = 0) -> Options:
    """The session's options, from pytest's.

    Args:
        shard: see `Options`.

    Raises:
        InputError: if one of them is wrong.
    """
    from graphquake.harness.errors import InputError  # noqa: PLC0415
    from graphquake.machines.sessions.session import Options  # noqa: PLC0415

    findings_max = config.getoption("--chaos-max-findings")
    if findings_max < 1:
        raise InputError(f"--chaos-max-findings: found {findings_max}, expected at least 1")
    slots = config.getoption("--slots")
    if not 1 <= slots <= SLOTS_MAX:
        raise InputError(f"--slots: found {slots}, expected 1 to {SLOTS_MAX}")
    seed = config.getoption("--hypothesis-seed", default=None)
    if seed is None:
        # Printed with the summary: the next search with it draws the same plans.
        seed = _any_seed(config)
    try:
        number = int(seed)
    except ValueError:
        raise InputError(f'--hypothesis-seed: found "{seed}", expected a whole number') from None
    corpus = config.getoption("--chaos-corpus")
    return Options(
        seed=number,
        shrink_limit=limit_of(config, "--shrink-budget"),
        replay_limit=limit_of(config, "--replay-budget"),
        results_dir=Path(config.getoption("--results-dir")),
        findings_max=findings_max,
        corpus=Path(corpus) if corpus else None,
        keep_failed=config.getoption("--keep-failed"),
        strict=bool(config.getoption("strict")),
        strict_known=config.getoption("--strict-known"),
        slots=slots,
        shrink_any=config.getoption("--shrink-any"),
        shard=shard,
    )

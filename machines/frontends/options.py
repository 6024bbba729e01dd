"""The options of the pytest plugin, and the `Options` of a search session that follow from them.

Every pytest in an environment with graphquake installed loads this module. So it imports little, and every option that it
registers begins with `--chaos`. So no option has the name of an option of pytest or of a project.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from graphquake.machines.runners.budget import UNLIMITED, Limit, parse_limit

if TYPE_CHECKING:
    from graphquake.machines.sessions.session import Options

BUDGET: Final = "10m"
# The highest allowed number of graphs side by side. No machine can run more, so a larger number must be a mistake.
SLOTS_MAX: Final = 64
# The value of --chaos-slots for as many as this machine carries.
AUTO: Final = "auto"


def add_options(group: pytest.OptionGroup) -> None:
    """Register every option, with a name that begins with `--chaos` and a `dest` that begins with `chaos_`."""

    def add(name: str, **rest: Any) -> None:
        group.addoption(name, dest=name.strip("-").replace("-", "_"), **rest)

    def flag(name: str, text: str) -> None:
        add(name, action="store_true", help=text)

    group.addoption(
        "--chaos",
        dest="chaos_search",
        action="store_true",
        help="search for fault sequences that break promises",
    )
    add(
        "--chaos-graph",
        action="append",
        default=[],
        metavar="NAME|FILE",
        help="graph to test, a ready-made one or a TOML file; implies --chaos; "
        "may be given more than once (reference and dynamo-disagg)",
    )
    _add_limits(add)
    add(
        "--chaos-slots",
        default=AUTO,
        metavar="K",
        help="graphs that run side by side, in the search and in shrinking; with GPUs, each needs its own "
        "(auto: as many as this machine carries)",
    )
    add("--chaos-corpus", metavar="DIR", help="folder of the cases (regressions, beside the graph file)")  # fmt: skip
    add(
        "--chaos-results-dir",
        default=".graphquake",
        metavar="DIR",
        help="folder for journals, runs and summaries (.graphquake)",
    )
    add(
        "--chaos-report-dir",
        metavar="DIR",
        help="folder for a copy of summaries, tables and pages that CI can keep",
    )
    flag("--chaos-shrink-any", "while shrinking, accept a plan that breaks any promise in any way")
    flag(
        "--chaos-keep-failed",
        "never delete a broken or invalid run; without it, the oldest go beyond 2 GiB",
    )
    flag("--chaos-share-gpus", "let replicas share GPUs if there are too few")
    flag("--chaos-dry-run", "print the first plans; start nothing")
    flag("--chaos-strict", "fail if a finding could not be confirmed")
    flag("--chaos-strict-known", "fail if a known case no longer breaks its promise")


def _add_limits(add: Callable[..., None]) -> None:
    add(
        "--chaos-budget",
        default=BUDGET,
        metavar="T",
        help=f"limit for all graphs together: live time (20m), live runs (60runs), or both with a comma ({BUDGET})",
    )
    add(
        "--chaos-shrink-budget",
        default="",
        metavar="T",
        help="limit for each shrink; a plan that is not minimal by then is saved as unshrunk, and the next search continues (no limit)",
    )
    add(
        "--chaos-replay-budget",
        default="",
        metavar="T",
        help="limit for the replay of each case (half of the remaining budget)",
    )
    add(
        "--chaos-max-findings",
        type=int,
        default=10,
        metavar="N",
        help="stop the search of a graph after N new findings (10)",
    )


def asks_for_chaos(config: pytest.Config) -> bool:
    """True if this session searches: `--chaos` or `--chaos-graph` was given."""
    return bool(config.getoption("--chaos") or config.getoption("--chaos-graph"))


def limit_of(config: pytest.Config, option: str) -> Limit:
    """The limit that an option gives, or no limit if it is empty.

    Raises:
        InputError: if the value is not a limit.
    """
    from graphquake.harness.errors import InputError  # noqa: PLC0415

    text = config.getoption(option)
    try:
        return parse_limit(text) if text else UNLIMITED
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None


def seed_of(config: pytest.Config) -> int | None:
    """The seed that `--hypothesis-seed` gives, or None without the option.

    Raises:
        InputError: if the value is not a whole number.
    """
    from graphquake.harness.errors import InputError  # noqa: PLC0415

    seed = config.getoption("--hypothesis-seed", default=None)
    try:
        return None if seed is None else int(seed)
    except ValueError:
        raise InputError(f'--hypothesis-seed: found "{seed}", expected a whole number') from None


def slots_of(config: pytest.Config) -> int | None:
    """The number of slots that the user asked for, or None if the first run is to show it.

    Raises:
        InputError: if the value is neither a number in range nor `auto`.
    """
    from graphquake.harness.errors import InputError  # noqa: PLC0415

    found = str(config.getoption("--chaos-slots"))
    if found == AUTO:
        # Processes that divide a search share the machine, and each of them would measure only its own graphs.
        return None if shards_of(config) == 1 else 1
    if not found.isdecimal() or not 1 <= int(found) <= SLOTS_MAX:
        raise InputError(f'--chaos-slots: found "{found}", expected {AUTO} or 1 to {SLOTS_MAX}')
    return int(found)


def shards_of(config: pytest.Config) -> int:
    """The number of pytest-xdist workers that divide the search, as a worker knows it. 1 in any other process."""
    return int(getattr(config, "workerinput", {}).get("workercount", 1))


def _random_seed(config: pytest.Config) -> int:
    """A random seed for a session without `--hypothesis-seed`. All processes of one pytest-xdist run get the same seed."""
    run = getattr(config, "workerinput", {}).get("testrunuid")
    chance = random.Random(run) if run else random.SystemRandom()
    return chance.randrange(1_000_000)


def options(config: pytest.Config, shard: int = 0) -> Options:
    """Translate pytest's options into the options of a search session.

    Args:
        shard: the part of the search that this process does, from 0.

    Raises:
        InputError: if an option has a value that is not allowed.
    """
    from graphquake.harness.errors import InputError  # noqa: PLC0415
    from graphquake.machines.sessions.session import Options  # noqa: PLC0415

    findings_max = config.getoption("--chaos-max-findings")
    if findings_max < 1:
        raise InputError(f"--chaos-max-findings: found {findings_max}, expected at least 1")
    seed = seed_of(config)
    corpus = config.getoption("--chaos-corpus")
    return Options(
        # The summary prints the seed. A search with the same seed draws the same plans up to the first finding.
        seed=_random_seed(config) if seed is None else seed,
        shrink_limit=limit_of(config, "--chaos-shrink-budget"),
        replay_limit=limit_of(config, "--chaos-replay-budget"),
        results_dir=Path(config.getoption("--chaos-results-dir")),
        findings_max=findings_max,
        corpus=Path(corpus) if corpus else None,
        keep_failed=config.getoption("--chaos-keep-failed"),
        strict=config.getoption("--chaos-strict"),
        strict_known=config.getoption("--chaos-strict-known"),
        slots=slots_of(config),
        shrink_any=config.getoption("--chaos-shrink-any"),
        shard=shard,
    )

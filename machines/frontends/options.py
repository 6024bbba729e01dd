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
from graphquake.machines.runners.on_ray.option import OnRay, is_on_ray, read_on_ray

if TYPE_CHECKING:
    from graphquake.machines.sessions.session_options import Options

BUDGET: Final = "10m"
# The highest allowed number of graphs side by side. No machine can run more, so a larger number must be a mistake.
SLOTS_MAX: Final = 64
# The most cores of one slot on Ray. No machine has more, so a larger number must be a mistake.
CORES_MAX: Final = 4096
# The value of --chaos-slots for as many as this machine carries.
AUTO: Final = "auto"
METRICS: Final = "--chaos-metrics"
TRACES: Final = "--chaos-traces"


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
        help="graph to test: the name of a ready-made one, or a graph file; implies --chaos; "
        "may be given more than once (reference and dynamo-disagg)",
    )
    _add_limits(add)
    _add_slots(add)
    _add_folders(add)
    flag(
        "--chaos-shrink-any",
        "let a shrink accept a plan that breaks any promise, not only the one of the finding",
    )
    flag(
        "--chaos-keep-failed",
        "never delete a broken or invalid run; otherwise the oldest are deleted beyond 2 GiB",
    )
    flag("--chaos-share-gpus", "let replicas share GPUs if there are too few")
    flag(
        "--chaos-resume",
        "continue a search that was killed: with its seed, its runs and the rest of its budget",
    )
    add(
        "--chaos-network",
        default="",
        choices=("host", "namespaces", "policies"),
        help="host: replicas share the network of this machine; namespaces: each has a network namespace of its own; "
        "policies: NetworkPolicies of a cluster may cut them off (as the graph file says)",
    )
    add(
        METRICS,
        default="",
        metavar="[HOST:]PORT",
        help="while the search runs, serve its metrics for Prometheus at http://127.0.0.1:PORT/metrics",
    )
    flag(
        TRACES,
        "send each run as an OpenTelemetry trace, to the collector that the variables OTEL_EXPORTER_OTLP_* name "
        "(http://localhost:4318)",
    )
    flag("--chaos-dry-run", "print the first plans; start nothing")
    flag("--chaos-strict", "fail if a finding could not be confirmed")
    flag("--chaos-strict-known", "fail if a known case no longer breaks its promise")


def _add_slots(add: Callable[..., None]) -> None:
    add(
        "--chaos-slots",
        default=AUTO,
        metavar="K",
        help="the number of graphs that run side by side; each needs its own GPUs; auto: as many as this machine can run; "
        "ray:K or ray:K@ADDRESS: on the nodes of a Ray cluster (auto)",
    )
    add(
        "--chaos-slot-cores",
        type=float,
        default=1.0,
        metavar="C",
        help="the cores that Ray reserves for each slot (1)",
    )


def _add_folders(add: Callable[..., None]) -> None:
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
        help="folder for a copy of summaries, tables and pages, for CI to keep",
    )


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
        help="limit for each shrink; a plan that is not minimal by then is saved as unshrunk, "
        "and the next search continues the shrink (no limit)",
    )
    add(
        "--chaos-replay-budget",
        default="",
        metavar="T",
        help="limit for the replay of each case (half of the remaining budget; a fifth for all known cases together)",
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

    if (asked := on_ray_of(config)) is not None:
        return asked.slots
    found = str(config.getoption("--chaos-slots"))
    if found == AUTO:
        # Processes that divide a search share the machine, and each of them would measure only its own graphs.
        return None if shards_of(config) == 1 else 1
    if not found.isdecimal() or not 1 <= int(found) <= SLOTS_MAX:
        raise InputError(
            f'--chaos-slots: found "{found}", expected {AUTO}, 1 to {SLOTS_MAX}, or ray:K'
        )
    return int(found)


def on_ray_of(config: pytest.Config) -> OnRay | None:
    """The slots on a Ray cluster that the user asked for, or None.

    Raises:
        InputError: if the value does not have the right form, or several processes would use the cluster.
    """
    from graphquake.harness.errors import InputError  # noqa: PLC0415

    found, cores = str(config.getoption("--chaos-slots")), config.getoption("--chaos-slot-cores")
    if not is_on_ray(found):
        return None
    if not 0 < cores <= CORES_MAX:
        raise InputError(
            f"--chaos-slot-cores: found {cores:g}, expected more than 0, at most {CORES_MAX}"
        )
    if hasattr(config, "workerinput") or getattr(config.option, "tx", None):
        raise InputError(f"pytest -n: found with --chaos-slots {found}, expected one process")
    if config.getoption("--chaos-share-gpus"):
        raise InputError(
            f"--chaos-share-gpus: found with --chaos-slots {found}, expected one of them"
        )
    try:
        return read_on_ray(found, cores)
    except ValueError as error:
        raise InputError(f"--chaos-slots: {error}") from None


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
    from graphquake.machines.sessions.session_options import Options  # noqa: PLC0415

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
        on_ray=on_ray_of(config),
        shrink_any=config.getoption("--chaos-shrink-any"),
        shard=shard,
        resume=config.getoption("--chaos-resume"),
        seed_is_given=seed is not None,
    )

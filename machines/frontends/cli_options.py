"""Options that several commands of the command line have."""

from __future__ import annotations

from argparse import Action, ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from graphquake.harness.errors import InputError
from graphquake.harness.spec.graph import GraphSpec, load_graph
from graphquake.harness.spec.templates.network import NETWORKS
from graphquake.machines.runners.budget import UNLIMITED, Budget, parse_limit


class Once(Action):
    """An option that may be given only once. Without this, the last one would count, and the others would be lost."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option: str | None = None
    ) -> None:
        """Store the value, unless there is one already."""
        if getattr(namespace, self.dest) != self.default:
            parser.error(f"argument {option}: found it twice, expected it once")
        setattr(namespace, self.dest, values)


def add_machine(command: ArgumentParser) -> None:
    """Add `--share-gpus` and `--network`, which decide how a graph uses this machine. `graph_of` reads them."""
    command.add_argument(
        "--share-gpus", action="store_true", help="let replicas share GPUs if there are too few"
    )
    command.add_argument(
        "--network",
        default="",
        choices=NETWORKS,
        help="host: replicas share the network of this machine; namespaces: each has a network namespace of its own; "
        "policies: NetworkPolicies of a cluster may cut them off (as the graph file says)",
    )


def graph_of(arguments: Namespace) -> GraphSpec:
    """The graph that the command names, with the options of `add_machine`."""
    return load_graph(arguments.graph, share_gpus=arguments.share_gpus, network=arguments.network)


def add_results_dir(command: ArgumentParser) -> None:
    """Add `--results-dir`."""
    command.add_argument(
        "--results-dir",
        type=Path,
        default=Path(".graphquake"),
        metavar="DIR",
        help="the results folder (.graphquake)",
    )


def add_budget(command: ArgumentParser) -> None:
    """Add `--chaos-budget`. `budget_of` reads it."""
    command.add_argument(
        "--chaos-budget",
        metavar="T",
        help="limit: live time (10m), live runs (60runs), or both with a comma (no limit)",
    )


def add_cases(command: ArgumentParser) -> None:
    """Add `--graph` and `--chaos-corpus`, which decide where a command looks for cases."""
    command.add_argument(
        "--graph",
        action="append",
        default=[],
        metavar="NAME|FILE",
        help="the graph of the case, if it is not found; may be given more than once (the ready-made graphs, and *.toml in this folder)",
    )
    command.add_argument(
        "--chaos-corpus",
        type=Path,
        metavar="DIR",
        help="the folder of the cases (regressions, beside the graph file)",
    )


def budget_of(arguments: Namespace) -> Budget:
    """The budget that `--chaos-budget` gives. Without the option it is unlimited.

    Raises:
        InputError: if the value is not a limit.
    """
    try:
        limit = parse_limit(arguments.chaos_budget) if arguments.chaos_budget else UNLIMITED
    except ValueError as error:
        raise InputError(f"--chaos-budget: {error}") from None
    return limit.begin()

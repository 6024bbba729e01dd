"""`graphquake export`: write a script that shows a case without this project, for a maintainer who does not have it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from graphquake.harness.errors import EXIT_KEPT, InputError
from graphquake.machines.frontends.cli_cases import find_case, with_network_for
from graphquake.machines.frontends.cli_options import add_cases
from graphquake.machines.reports.export import SCRIPT, export

NEXT: Final = "It exits with 1 if the bug shows, and with 0 if it does not."


def export_options(command: argparse.ArgumentParser) -> None:
    """Register the arguments of `export`."""
    command.add_argument("case", metavar="ID|FILE", help="the id of a case, or its file")
    command.add_argument(
        "--to", type=Path, metavar="DIR", help="the folder for the script (reproduce-ID)"
    )
    add_cases(command)


def export_case(arguments: argparse.Namespace) -> int:
    """Run `graphquake export`, and return the exit status.

    Raises:
        InputError: if the case or its graph is not found, if a script can't show the case, or if the folder exists.
    """
    _, case, spec = find_case(arguments, arguments.case)
    if spec is None:
        name = case.graph["name"]
        raise InputError(f"export {case.id}: no graph file describes {name}: give --graph FILE")
    folder: Path = arguments.to or Path(f"reproduce-{case.id}")
    if folder.exists():
        raise InputError(f"--to: {folder} exists, expected a new folder")
    there = with_network_for(case.as_in(spec), case.plan)
    for warning in export(case, there, folder):
        print(f"warning: {warning}")
    print(f"python {folder / SCRIPT}\n{NEXT}")
    return EXIT_KEPT

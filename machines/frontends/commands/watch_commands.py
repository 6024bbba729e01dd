"""`graphquake status`, `abort` and `sweep`: watch and end searches of other processes, and remove the leftovers of killed ones."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from graphquake.harness.errors import EXIT_KEPT, EXIT_PROVED_NOTHING, InputError
from graphquake.harness.processes.procfs import Owner
from graphquake.harness.run.open_target import sweep_leftovers
from graphquake.harness.spec.graph import load_graph
from graphquake.machines.frontends.cli_options import add_results_dir
from graphquake.machines.reports.finding_text import counted
from graphquake.machines.runners.budget import duration_text
from graphquake.machines.sessions.live_state import LiveState, read_states

# The time that a search gets to end its runs and to print its summary, in seconds.
ENDS_WITHIN_S: Final = 60.0
POLL_S: Final = 0.1


def status_options(command: argparse.ArgumentParser) -> None:
    """Register the arguments of `status`."""
    command.add_argument("graph", nargs="?", metavar="NAME", help="only searches of this graph")
    add_results_dir(command)


def abort_options(command: argparse.ArgumentParser) -> None:
    """Register the arguments of `abort`."""
    status_options(command)


def status(arguments: argparse.Namespace) -> int:
    """Run `graphquake status`: print each search of a results folder. The exit status is 0 if one of them runs, and 3 otherwise.

    Raises:
        InputError: if the folder has no state of a search.
    """
    found = _states(arguments)
    for folder, state in found:
        print("\n".join(_lines(folder, state)))
    return EXIT_KEPT if any(state.lives for _, state in found) else EXIT_PROVED_NOTHING


def abort(arguments: argparse.Namespace) -> int:
    """Run `graphquake abort`: end the searches as Ctrl-C in their terminal does, and wait for their ends.

    Each search heals and ends its graphs, and prints its summary. The exit status is 0 if all of them have ended.

    Raises:
        InputError: if no search runs.
    """
    running = [(folder, state) for folder, state in _states(arguments) if state.lives]
    if not running:
        raise InputError(
            f"{arguments.results_dir}: found no search that runs, expected at least one"
        )
    # A terminal sends Ctrl-C to the controller of pytest-xdist and to its workers.
    for pid in {pid for _, state in running for pid in (state.controller, state.pid) if pid}:
        os.kill(pid, signal.SIGINT)
    owners = {folder: Owner(state.pid, state.start, "") for folder, state in running}
    until_s = time.monotonic() + ENDS_WITHIN_S
    while any(owner.lives for owner in owners.values()) and time.monotonic() < until_s:
        time.sleep(POLL_S)
    for folder, state in _states(arguments):
        if folder in owners:
            print("\n".join(_lines(folder, state)))
    left = [owner.pid for owner in owners.values() if owner.lives]
    if left:
        print(f"still running after {ENDS_WITHIN_S:.0f} s: {', '.join(map(str, left))}")
    return EXIT_PROVED_NOTHING if left else EXIT_KEPT


def _states(arguments: argparse.Namespace) -> list[tuple[Path, LiveState]]:
    """Read the states that the arguments ask for.

    Raises:
        InputError: if there is none.
    """
    results: Path = arguments.results_dir
    found = [one for one in read_states(results) if arguments.graph in (None, one[1].graph)]
    if not found:
        of = f" of {arguments.graph}" if arguments.graph else ""
        raise InputError(
            f"--results-dir: {results} has no search{of}, expected the results folder of a search"
        )
    return found


def _lines(folder: Path, state: LiveState) -> Iterator[str]:
    left = f" of {duration_text(state.budget_s)}" if state.budget_s else ""
    yield f"{state.graph} · seed {state.seed} · pid {state.pid} · {duration_text(state.spent_s)}{left} · {folder}"
    runs = ", ".join(f"{number} {kind}" for kind, number in state.live.items())
    yield f"  runs      {state.runs}{f': {runs}' if runs else ''}; {counted(len(state.findings), 'finding')}"
    for case, line in state.findings.items():
        yield f"  finding   {case} {line}"
    if state.ended:
        yield f"  ended     {state.ended}"
    elif not state.lives:
        yield "  ended     killed, without a summary; the same command with --chaos-resume goes on"
    elif state.now:
        now = state.now
        yield f"  now       {now['why']}: {now['plan']}: {now['phase']} at {now['now_s']:.1f} s, {now['sent']} sent, {now['failed']} failed"


def sweep_options(command: argparse.ArgumentParser) -> None:
    """Register the argument of `sweep`."""
    command.add_argument("graph", metavar="FILE", help="a graph file with a table [kubernetes]")


def sweep(arguments: argparse.Namespace) -> int:
    """Run `graphquake sweep`: remove the leftovers of killed runs from a cluster, and print their names.

    Raises:
        InputError: if the graph does not live in a cluster, or its namespace must not be used.
    """
    spec = load_graph(arguments.graph)
    if spec.cluster is None:
        ends = "the next start of a launched graph ends the leftovers of earlier ones"
        raise InputError(f"{spec.path.name}: has no table [kubernetes]; {ends}")
    removed = asyncio.run(sweep_leftovers(spec))
    for name in removed:
        print(f"{'removed' if name.startswith(('Pod ', 'Namespace ')) else 'put back'} {name}")
    if not removed:
        print("nothing to remove or to put back")
    return EXIT_KEPT

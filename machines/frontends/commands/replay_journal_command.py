"""`graphquake replay-journal`: make the runs of a finished search again, and compare their verdicts."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

from graphquake.harness.errors import EXIT_BROKEN, EXIT_KEPT, EXIT_PROVED_NOTHING, InputError
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.spec.graph import GraphSpec
from graphquake.machines.cases.case import Case
from graphquake.machines.findings.artifacts import RunArchive, write_run_page
from graphquake.machines.frontends.cli_options import (
    Once,
    add_budget,
    add_machine,
    add_results_dir,
    budget_of,
    graph_of,
)
from graphquake.machines.reports.finding_text import counted
from graphquake.machines.reports.reporter import Reporter
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.runners.live_runner import LiveRunner
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.sessions.checks import check_functions, check_machine
from graphquake.machines.sessions.folders import open_corpus, runs_folder
from graphquake.machines.sessions.live_state import LiveState, read_state
from graphquake.machines.sessions.replay_journal import (
    NAME,
    Compared,
    Recorded,
    read_journal,
    replay_journal,
)


def replay_journal_options(command: argparse.ArgumentParser) -> None:
    """Register the arguments of `replay-journal`."""
    command.add_argument(
        "journal",
        type=Path,
        metavar="FOLDER",
        help="the folder of the search: .graphquake/GRAPH, or its journal",
    )
    command.add_argument(
        "--graph", required=True, action=Once, metavar="NAME|FILE", help="the graph (required)"
    )
    command.add_argument(
        "--chaos-corpus", type=Path, metavar="DIR", help="the folder of the cases (regressions)"
    )
    command.add_argument(
        "--slots", type=int, metavar="K", help="graphs side by side (as many as the search had)"
    )
    command.add_argument("--dry-run", action="store_true", help="print the runs; start nothing")
    add_machine(command)
    add_results_dir(command)
    add_budget(command)


def replay_search(arguments: argparse.Namespace) -> int:
    """Run `graphquake replay-journal`.

    Returns:
        0 if every verdict is the same, 1 if one differs, and 3 if the budget ended first.

    Raises:
        InputError: if the journal is missing or damaged, is of another graph, or replays a case that is gone.
    """
    spec = on_this_machine(graph_of(arguments))
    path: Path = arguments.journal
    state = read_state(path if path.is_dir() else path.parent)
    slots = _slots(arguments, spec, state)
    runs = read_journal(path, spec)
    cases = _cases(runs, spec, arguments.chaos_corpus)
    if arguments.dry_run:
        for one in runs:
            reason = f", {one.begun.reason}" if one.begun.reason else ""
            print(f"run {one.run} ({one.why}{reason}): {one.plan.one_line()}")
        return EXIT_KEPT
    check_functions(spec)
    check_machine(spec, slots)
    done = _replay(runs, cases, spec, slots, arguments)
    same = sum(one.is_same for one in done)
    left = len(runs) - len(done)
    not_run = f"; {counted(left, 'run')} not made: the budget is spent" if left else ""
    print(f"{same} of {counted(len(done), 'run')} with the same verdict{not_run}")
    if same < len(done):
        return EXIT_BROKEN
    return EXIT_PROVED_NOTHING if left else EXIT_KEPT


def _slots(arguments: argparse.Namespace, spec: GraphSpec, state: LiveState | None) -> int:
    if state is not None and state.graph != spec.name:
        raise InputError(
            f'--graph: found "{spec.name}", expected "{state.graph}", the graph of {arguments.journal}'
        )
    if state is not None and state.lives:
        raise InputError(
            f"{arguments.journal}: the search still runs, as pid {state.pid}; expected one that has ended"
        )
    slots: int = arguments.slots or (1 if state is None else state.slots)
    if slots < 1:
        raise InputError(f"--slots: found {slots}, expected at least 1")
    return slots


def _cases(runs: list[Recorded], spec: GraphSpec, chosen: Path | None) -> dict[str, Case]:
    """The cases that the journal replays: the bounds and the load of these runs are theirs."""
    corpus = open_corpus(spec, chosen)
    known = {case.id: case for case in corpus.of(spec)}
    for one in runs:
        if one.case and one.case not in known:
            raise InputError(
                f"{one.where}: found a replay of case {one.case}, expected a case in {corpus.folder}"
            )
    return known


def _replay(
    runs: list[Recorded],
    cases: dict[str, Case],
    spec: GraphSpec,
    slots: int,
    arguments: argparse.Namespace,
) -> list[Compared]:
    budget, reporter, done = budget_of(arguments), Reporter(sys.stderr), list[Compared]()
    folder = runs_folder(arguments.results_dir, spec.name, "replay-journal")
    archive = RunArchive()

    with ExitStack() as stack:
        log = RunLog(folder / NAME)
        stack.callback(log.close)
        stack.callback(reporter.clear)
        reporter.begin(spec.name, log, budget)
        stack.enter_context(suppress(BudgetSpent))
        runner = LiveRunner(spec, folder, budget, watch=reporter, put_away=archive.add, slots=slots)
        stack.enter_context(runner)
        specs = {id_: case.as_in(spec) for id_, case in cases.items()}
        for one in replay_journal(runs, runner, log, specs):
            done.append(one)
            if not one.is_same:
                write_run_page(one.today)
                reporter.clear()
                print(one.line, flush=True)
                print(f"  files: {one.today.folder}", flush=True)
    return done

"""`graphquake demo`: a real search of a small graph with one planted bug, in less than a minute.

Nothing in its result is prepared. Plans are drawn, real processes are killed, the first failing plan is shrunk and confirmed, and a case
and a picture are written. Only the seed is fixed, so that the first plans are the same each time.

The demo keeps its case in its own results folder and empties that folder first. Otherwise the case would excuse the bug in a second demo.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Final

from graphquake.harness.errors import EXIT_KEPT, EXIT_PROVED_NOTHING, InputError
from graphquake.harness.picture import NAME
from graphquake.harness.spec.graph import load_graph
from graphquake.machines.findings.finding import Finding
from graphquake.machines.frontends.cli_options import add_results_dir
from graphquake.machines.reports.finding_text import short
from graphquake.machines.reports.reporter import Reporter
from graphquake.machines.reports.summary import GraphSummary
from graphquake.machines.runners.budget import Budget
from graphquake.machines.sessions.folders import results_folder
from graphquake.machines.sessions.session import Session
from graphquake.machines.sessions.session_options import Options

GRAPH: Final = "demo"
SEED: Final = 2
# A minute, less the time that the runs in progress and the pictures may take after the budget has ended.
BUDGET_S: Final = 46.0
# Two graphs run side by side. A run mostly waits, so two cores are enough for both.
SLOTS: Final = 2
# Only a folder with this file is emptied.
MARK: Final = "of-a-demo"

BEGIN: Final = """\
This demo starts a small inference graph: a registry, a frontend, a processor and two workers. One of them has a bug.
Graphquake kills processes while clients send requests, until a promise is broken. Then it looks for the shortest plan
that breaks the promise, and runs that plan until it is sure. Seed {seed}; at most a minute on two free cores.
"""

NEXT: Final = """\
Your own graph: describe it in a TOML file (docs/quickstart.md), then
  graphquake try my-graph.toml
  pytest --chaos-graph my-graph.toml --chaos-budget 10m"""


def demo(arguments: argparse.Namespace) -> int:
    """Search the demo's graph and print the finding.

    Returns:
        0 if the planted bug was found, shrunk and confirmed, or 3 if the budget ended before that.
    """
    spec = load_graph(GRAPH)
    folder = _empty_folder(arguments.results_dir)
    options = Options(arguments.seed, folder, findings_max=1, corpus=folder / "cases", slots=SLOTS)
    print(BEGIN.format(seed=arguments.seed), flush=True)
    summary = Session(spec, options, Budget(BUDGET_S), Reporter(sys.stdout)).run()
    print(f"{result_text(summary)}\n\n{NEXT}")
    return EXIT_KEPT if _is_confirmed(summary) else EXIT_PROVED_NOTHING


def _empty_folder(root: Path) -> Path:
    """Make the demo's folder, and remove the results of an earlier demo in it.

    Raises:
        InputError: if the folder holds something that no demo wrote.
    """
    folder = results_folder(root, GRAPH)
    if folder.exists():
        if not (folder / MARK).is_file():
            raise InputError(
                f"--results-dir: {folder} exists, and the demo did not make it. Choose another folder."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    return folder


def add_options(parser: argparse.ArgumentParser) -> None:
    """Register the arguments of `demo`."""
    parser.add_argument(
        "--seed", type=int, default=SEED, metavar="N", help=f"draws other plans ({SEED})"
    )
    add_results_dir(parser)


def _is_confirmed(summary: GraphSummary) -> bool:
    return any(finding.case.status == "open" for finding in summary.findings)


def result_text(summary: GraphSummary) -> str:
    """Say in a few lines whether the bug was found, shrunk and confirmed, at what cost, and where the picture is."""
    cost = f"{summary.runs} live runs in {summary.spent_s:.0f} s"
    if not summary.findings:
        return (
            f"The time ended before a plan broke a promise: {cost}.\n"
            "The machine may be busy with other work. Run the demo again, or with another --seed."
        )
    finding = summary.findings[0]
    if _is_confirmed(summary):
        return f"Found, shrunk and confirmed: {cost}.\n{_picture_line(finding)}"
    return (
        f"Found, but the time ended before the plan was shrunk and confirmed: {cost}.\n"
        f"The case says so: its status is {finding.case.status}. The machine may be busy with other work.\n"
        f"{_picture_line(finding)}"
    )


def _picture_line(finding: Finding) -> str:
    folder = finding.shown.folder
    return f"Open the picture in a browser: {short(folder / NAME)}" if folder else ""

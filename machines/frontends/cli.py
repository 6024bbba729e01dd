"""The `graphquake` command: demo, init, try, run, replay, replay-journal, mark, export, check, status, abort, sweep, results.

Exit status: 0 kept, 1 broken, 2 input error, 3 proved nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from graphquake.harness.errors import (
    EXIT_BROKEN,
    EXIT_INPUT,
    EXIT_KEPT,
    EXIT_PROVED_NOTHING,
    GraphquakeError,
    InputError,
)
from graphquake.harness.history.history import History
from graphquake.harness.history.request import Outcome
from graphquake.harness.picture import NAME, write_page
from graphquake.harness.promises.idle import unserved_texts
from graphquake.harness.promises.judgement import judge
from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.reports.impact import SLOW_S
from graphquake.harness.reports.story import story
from graphquake.harness.reports.suite_table import FORMATS, compare, read_records, render
from graphquake.harness.reports.text import since_s
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.spec.feasible import check_plan
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan, read_plan
from graphquake.harness.spec.steps.table import verbs
from graphquake.harness.spec.table import did_you_mean
from graphquake.machines.findings.artifacts import write_run_page
from graphquake.machines.frontends.cli_cases import (
    mark_case,
    mark_options,
    replay_cases,
    replay_options,
)
from graphquake.machines.frontends.cli_options import (
    Once,
    add_budget,
    add_machine,
    add_results_dir,
    budget_of,
    graph_of,
)
from graphquake.machines.frontends.commands.export_command import export_case, export_options
from graphquake.machines.frontends.commands.init_command import init, init_options
from graphquake.machines.frontends.commands.replay_journal_command import (
    replay_journal_options,
    replay_search,
)
from graphquake.machines.frontends.commands.try_command import trial
from graphquake.machines.frontends.commands.watch_commands import (
    abort,
    abort_options,
    status,
    status_options,
    sweep,
    sweep_options,
)
from graphquake.machines.frontends.demo import add_options as add_demo_options
from graphquake.machines.frontends.demo import demo
from graphquake.machines.reports.finding_text import counted
from graphquake.machines.reports.reporter import Reporter
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.runners.live_runner import LiveRunner
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import RunResult
from graphquake.machines.sessions.checks import check_functions, check_machine
from graphquake.machines.sessions.folders import open_corpus, results_folder, runs_folder
from graphquake.machines.shrinking.stats import wilson

ABOUT: Final = (
    "Find and replay fault sequences that break promises of an inference-serving graph. "
    "Exit status: 0 kept, 1 broken, 2 input error, 3 proved nothing."
)
EXIT_OF: Final = {"kept": EXIT_KEPT, "broken": EXIT_BROKEN, "invalid": EXIT_PROVED_NOTHING}
GRAPH: Final = "the name of a ready-made graph, or a graph file"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        exit_status: int = arguments.command(arguments)
    except GraphquakeError as error:
        print(f"graphquake: {error}", file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("graphquake: interrupted; nothing is left running", file=sys.stderr)
        return EXIT_PROVED_NOTHING
    return exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="graphquake", description=ABOUT)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, what, add_options, function in (
        ("demo", "find a planted bug in a small real graph, in less than a minute", add_demo_options, demo),
        ("init", "write a graph file to start from", init_options, init),
        ("try", "start a graph without faults; print its promises, the possible steps and the cost of a run", _try_options, _try),
        ("run", "run a plan that you give", _run_options, _run),
        ("replay", "run the plan of a case again, to see whether its bug is still there", replay_options, replay_cases),
        ("replay-journal", "make the runs of a finished search again, and compare their verdicts", replay_journal_options, replay_search),
        ("mark", "set the status of a case: open, known or fixed", mark_options, mark_case),
        ("export", "write a script that shows the bug of a case without graphquake", export_options, export_case),
        ("check", "judge the history of an old run again", _check_options, _check),
        ("status", "print the state of each search of a results folder", status_options, status),
        ("abort", "end the searches that run, as Ctrl-C in their terminal does", abort_options, abort),
        ("sweep", "remove the leftovers of killed runs from a cluster", sweep_options, sweep),
        ("results", "print the table of the runs in a folder, and draw missing pictures", _results_options, _results),
    ):  # fmt: skip
        command = commands.add_parser(name, help=what, description=what)
        add_options(command)
        command.set_defaults(command=function)
    return parser


def _try_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("graph", metavar="NAME|FILE", help=GRAPH)
    add_results_dir(command)
    add_machine(command)


def _run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "plan",
        metavar="PLAN",
        help="a file (one step a line, or JSON), the steps with semicolons between them, or - for standard input",
    )
    command.add_argument(
        "--graph", required=True, action=Once, metavar="NAME|FILE", help=f"{GRAPH} (required)"
    )
    command.add_argument("--runs", type=int, default=1, metavar="N", help="the number of runs (1)")
    add_machine(command)
    command.add_argument("--json", action="store_true", help="verdicts and violations as JSON")
    command.add_argument("--dry-run", action="store_true", help="print the plan; start nothing")
    add_results_dir(command)
    add_budget(command)


def _check_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("history", type=Path, metavar="FOLDER", help="the folder of a run")
    command.add_argument("--json", action="store_true", help="the verdict as JSON")


def _results_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "folder", type=Path, metavar="DIR", help="the folder of the runs; they may be in subfolders"
    )
    command.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help=f"the form of the table ({FORMATS[0]})",
    )
    command.add_argument(
        "--compare", type=Path, metavar="DIR", help="compare with the runs in this folder"
    )
    command.add_argument(
        "--slow",
        type=float,
        default=SLOW_S,
        metavar="S",
        help=f"a right answer that takes longer, in seconds, counts as slow ({SLOW_S})",
    )


# ----------------------------------------------------------------------------------------------------------- try, run


def _try(arguments: argparse.Namespace) -> int:
    spec = on_this_machine(graph_of(arguments))
    check_functions(spec)
    check_machine(spec)
    open_corpus(spec)
    text, kind = asyncio.run(trial(spec, results_folder(arguments.results_dir, spec.name, "try")))
    print(text)
    return EXIT_OF[kind]


def _read_plan_argument(name: str, spec: GraphSpec) -> tuple[str, Plan]:
    own = spec.own_steps
    if name == "-":
        return "standard input", read_plan("standard input", sys.stdin.read(), own)
    if " " in name and not Path(name).exists():
        return "plan", read_plan("plan", name.replace(";", "\n"), own)
    try:
        return name, read_plan(name, Path(name).read_text(encoding="utf-8"), own)
    except (FileNotFoundError, IsADirectoryError):
        if re.fullmatch(r"[\w-]+", name):
            # `kill_server` begins like a step whose words were joined.
            near = did_you_mean(re.split("[_-]", name)[0], [*verbs(), *own])
            near += "" if near.endswith("?") else "."
            raise InputError(
                f'"{name}": found neither a file nor a step{near} A plan is a file, or steps such as "kill worker 0; wait 1 s"'
            ) from None
        raise InputError(
            f'"{name}": found neither a file nor a step, expected a plan file or steps such as "kill worker 0; wait 1 s"'
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: {getattr(error, 'strerror', None) or error}") from None


def _run(arguments: argparse.Namespace) -> int:
    spec = on_this_machine(graph_of(arguments))
    source, plan = _read_plan_argument(arguments.plan, spec)
    check_plan(spec, plan, source)
    if arguments.runs < 1:
        raise InputError(f"--runs: found {arguments.runs}, expected at least 1")
    check_functions(spec)
    if arguments.dry_run:
        print(f"{spec.name} · {spec.shape} · dry run: nothing is started\n{plan}")
        return EXIT_KEPT
    check_machine(spec)
    outcomes: list[RunResult] = []
    folder = runs_folder(arguments.results_dir, spec.name, "run")
    reporter = Reporter(sys.stderr)
    budget = budget_of(arguments)
    journal = RunLog()
    reporter.begin(spec.name, journal, budget)
    with ExitStack() as stack:
        stack.callback(reporter.clear)
        runner = LiveRunner(spec, folder, budget, watch=reporter)
        stack.enter_context(runner)
        stack.enter_context(suppress(BudgetSpent))
        for number in range(arguments.runs):
            outcome = runner.run(plan, f"run {number + 1}")
            journal.run(plan, "run", outcome.verdict, outcome.live_s, "")
            outcomes.append(outcome)
            write_run_page(outcome)
            reporter.clear()
            if not arguments.json:
                print(_run_text(number + 1, outcome), flush=True)
    if arguments.json:
        rows = [
            _verdict_json(o.verdict) | {"live_s": round(o.live_s, 2), "folder": str(o.folder)}
            for o in outcomes
        ]
        print(
            json.dumps(
                {"schema": 1, "graph": spec.name, "plan": plan.to_json(), "runs": rows}, indent=1
            )
        )
    else:
        print(_runs_text(outcomes))
    kinds = {outcome.verdict.kind for outcome in outcomes}
    if "broken" in kinds:
        return EXIT_BROKEN
    return EXIT_KEPT if "kept" in kinds else EXIT_PROVED_NOTHING


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "says": verdict.kind,
        "signatures": [str(one) for one in verdict.signatures],
        "violations": [
            {"promise": v.promise, "signature": str(v.signature), "at_s": round(v.at_s, 3),
             "seen": v.seen, "after": v.after, "request": v.request}
            for v in verdict.violations[:100]
        ],
        "causes": list(verdict.causes),
        "weak": verdict.weak,
        "weak_because": list(verdict.weak_because),
        "excused": verdict.excused,
    }  # fmt: skip


def _verdict_lines(verdict: Verdict, zero_s: float) -> list[str]:
    """For each signature, a line with the number of its violations and the first one. Then a line for each cause of an invalid run.

    Args:
        verdict: the verdict.
        zero_s: the time on the run's clock from which the lines count, in seconds (see `since_s`).
    """
    counts = Counter(violation.signature for violation in verdict.violations)
    lines = []
    for signature, count in counts.items():
        first = next(v for v in verdict.violations if v.signature == signature)
        after = f' after "{first.after}"' if first.after else ""
        lines.append(
            f"    {count} × {signature}, first at {first.at_s - zero_s:+.2f} s{after}: {first.seen}"
        )
    return lines + [f"    {cause}" for cause in verdict.causes]


def _run_text(number: int, outcome: RunResult) -> str:
    verdict = outcome.verdict
    history = outcome.history
    right = sum(request.outcome == Outcome.OK for request in history.requests)
    head = (
        f"run {number}: {verdict.text}, {right} of {len(history.requests)} right, "
        f"{outcome.live_s:.1f} s, {outcome.folder}"
    )
    idle = [f"    at the end of the baseline: {text}" for text in unserved_texts(history)]
    return "\n".join([head, *idle, *_verdict_lines(verdict, since_s(history))])


def _runs_text(outcomes: list[RunResult]) -> str:
    counts = Counter(outcome.verdict.kind for outcome in outcomes)
    valid = counts["kept"] + counts["broken"]
    low, high = wilson(counts["broken"], valid) if valid else (0.0, 1.0)
    if not outcomes:
        return "no run fits into the budget"
    median_s = statistics.median(outcome.live_s for outcome in outcomes)
    excused = [o.verdict.excused for o in outcomes if o.verdict.kind == "kept"]
    kept = f"; kept runs excused {counted(sum(excused), 'failed request')}" if any(excused) else ""
    return (
        f"{counts['broken']} of {valid} runs broken ({low:.0%} to {high:.0%}, 95% Wilson), "
        f"{counts['invalid']} invalid, median {median_s:.1f} s{kept}"
    )


def _check(arguments: argparse.Namespace) -> int:
    history = History.load(arguments.history)
    verdict = judge(history)
    if arguments.json:
        print(json.dumps({"schema": 1} | _verdict_json(verdict), indent=1))
    else:
        print(
            "\n".join([verdict.text, *_verdict_lines(verdict, since_s(history)), *story(history)])
        )
    return EXIT_OF[verdict.kind]


def _results(arguments: argparse.Namespace) -> int:
    records = read_records(arguments.folder, arguments.slow)
    if arguments.compare is not None:
        print(compare(read_records(arguments.compare, arguments.slow), records, arguments.format))
        return EXIT_KEPT
    print(render(records, arguments.format))
    for record in records:
        # An existing page may have links to other pages, so it is not written again.
        if not (Path(record.folder) / NAME).is_file():
            write_page(History.load(Path(record.folder)), Path(record.folder))
    return EXIT_KEPT


if __name__ == "__main__":
    sys.exit(main())

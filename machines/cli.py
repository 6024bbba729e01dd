"""The `graphquake` command: try, run, replay, mark, check.

Exit status: 0 kept, 1 broken, 2 input error, 3 proved nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
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
from graphquake.harness.history import History
from graphquake.harness.plan import Plan, read_plan
from graphquake.harness.promises import judge
from graphquake.harness.spec import GraphSpec, built_in_graphs, load_graph
from graphquake.harness.story import story
from graphquake.harness.verdict import Verdict
from graphquake.machines.corpus import Case, Corpus, Status, as_in, read_case
from graphquake.machines.journal import Journal
from graphquake.machines.lab import Budget, LiveLab, Outcome
from graphquake.machines.model import check_plan
from graphquake.machines.plugin import parse_duration
from graphquake.machines.progress import Reporter
from graphquake.machines.rates import wilson
from graphquake.machines.replay import Replay, replay
from graphquake.machines.report import table
from graphquake.machines.session import corpus_folder, open_corpus, record, results_folder
from graphquake.machines.trial import trial_text

NO_BUDGET_S: Final = float("inf")
RECORD_RUNS_MIN: Final = 5
MARKS: Final[tuple[Status, ...]] = ("open", "known", "fixed")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.command(arguments)
    except GraphquakeError as error:
        print(f"graphquake: {error}", file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("graphquake: interrupted; nothing is left running", file=sys.stderr)
        return EXIT_PROVED_NOTHING
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="graphquake", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, what: str, function: Any) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=what, description=what)
        made.set_defaults(command=function)
        return made

    def common(made: argparse.ArgumentParser) -> None:
        made.add_argument("--results-dir", type=Path, default=Path(".graphquake"), metavar="DIR")
        made.add_argument(
            "--chaos-budget", default=None, metavar="T", help="live time at most, e.g. 10m"
        )

    tried = command(
        "try",
        "start a graph, get one right answer, say what can be drawn and what a run costs; no fault",
        _try,
    )
    tried.add_argument("graph", metavar="NAME|FILE")
    common(tried)

    run = command("run", "run one given plan", _run)
    run.add_argument(
        "plan", metavar="PLAN", help="a file (JSON, or a step a line), or - for standard input"
    )
    run.add_argument("--graph", required=True, metavar="NAME|FILE")
    run.add_argument("--runs", type=int, default=1, metavar="N")
    for made in (tried, run):
        made.add_argument(
            "--share-gpus", action="store_true", help="replicas may be given the same GPUs"
        )
    run.add_argument("--json", action="store_true", help="verdicts and violations as JSON")
    run.add_argument(
        "--dry-run", action="store_true", help="print the plan and its victims; start nothing"
    )
    common(run)

    again = command("replay", "replay a case: is it still there?", _replay)
    again.add_argument("case", nargs="*", metavar="ID|FILE")
    again.add_argument(
        "--all", action="store_true", help="every case of the graphs given, or found here"
    )
    again.add_argument("--record", action="store_true", help="add what was seen to the case")
    again.add_argument("--runs", type=int, metavar="N", help="exactly so many runs")
    again.add_argument("--graph", action="append", default=[], metavar="NAME|FILE")
    again.add_argument("--chaos-corpus", type=Path, metavar="DIR")
    again.add_argument(
        "--strict-known", action="store_true", help="a known case that is perhaps fixed fails"
    )
    again.add_argument("--dry-run", action="store_true", help="print the plans; start nothing")
    common(again)

    mark = command("mark", "say what a case is: open, known or fixed", _mark)
    mark.add_argument("case", metavar="ID|FILE")
    mark.add_argument("status", choices=MARKS)
    mark.add_argument("--why", default="", help="a reason or a link; a known case needs one")
    mark.add_argument("--graph", action="append", default=[], metavar="NAME|FILE")
    mark.add_argument("--chaos-corpus", type=Path, metavar="DIR")

    check = command("check", "judge an old history again", _check)
    check.add_argument("history", type=Path, metavar="FOLDER")
    check.add_argument("--json", action="store_true")
    return parser


def _budget(arguments: argparse.Namespace) -> Budget:
    if arguments.chaos_budget is None:
        return Budget(NO_BUDGET_S)
    try:
        return Budget(parse_duration(arguments.chaos_budget))
    except ValueError as error:
        raise InputError(f"--chaos-budget: {error}") from None


# ----------------------------------------------------------------------------------------------------------- try, run


def _try(arguments: argparse.Namespace) -> int:
    spec = load_graph(arguments.graph, share_gpus=arguments.share_gpus)
    open_corpus(spec)
    print(asyncio.run(trial_text(spec, results_folder(arguments.results_dir, spec.name, "try"))))
    return EXIT_KEPT


def _read_plan_argument(name: str) -> tuple[str, Plan]:
    if name == "-":
        return "standard input", read_plan("standard input", sys.stdin.read())
    if " " in name and not Path(name).exists():
        return "plan", read_plan("plan", name.replace(";", "\n"))
    try:
        return name, read_plan(name, Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: {getattr(error, 'strerror', None) or error}") from None


def _run(arguments: argparse.Namespace) -> int:
    spec = load_graph(arguments.graph, share_gpus=arguments.share_gpus)
    source, plan = _read_plan_argument(arguments.plan)
    check_plan(spec, plan, source)
    if arguments.runs < 1:
        raise InputError(f"--runs: found {arguments.runs}, expected at least 1")
    if arguments.dry_run:
        print(f"{spec.name} · {spec.shape} · dry run: nothing is started\n{plan}")
        return EXIT_KEPT
    outcomes: list[Outcome] = []
    folder = results_folder(arguments.results_dir, spec.name)
    reporter = Reporter(sys.stderr)
    budget = _budget(arguments)
    journal = Journal()
    reporter.begin(spec.name, journal, budget)
    with ExitStack() as stack:
        stack.callback(reporter.clear)
        lab = LiveLab(spec, folder / "runs", budget, watch=reporter, keep_all=True)
        stack.enter_context(lab)
        for number in range(arguments.runs):
            outcome = lab.run(plan, f"run {number + 1}")
            journal.run(plan, "run", outcome.verdict.says, outcome.live_s, "")
            outcomes.append(outcome)
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
    says = {outcome.verdict.says for outcome in outcomes}
    if "broken" in says:
        return EXIT_BROKEN
    return EXIT_KEPT if "kept" in says else EXIT_PROVED_NOTHING


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "says": verdict.says,
        "signatures": list(verdict.signatures),
        "violations": [
            {"promise": v.promise, "signature": v.signature, "at_s": round(v.at_s, 3),
             "seen": v.seen, "after": v.after, "request": v.request}
            for v in verdict.violations[:100]
        ],
        "causes": list(verdict.causes),
        "weak": verdict.weak,
    }  # fmt: skip


def _verdict_lines(verdict: Verdict) -> list[str]:
    """The verdict, with each signature's count and its first sighting."""
    counts = Counter(violation.signature for violation in verdict.violations)
    lines = []
    for signature, count in counts.items():
        first = next(v for v in verdict.violations if v.signature == signature)
        after = f' after "{first.after}"' if first.after else ""
        lines.append(f"    {count} × {signature}, first at {first.at_s:.2f} s{after}: {first.seen}")
    return lines + [f"    {cause}" for cause in verdict.causes]


def _run_text(number: int, outcome: Outcome) -> str:
    verdict = outcome.verdict
    weak = " (weak: most of it was outage)" if verdict.weak else ""
    head = f"run {number}: {verdict.says}{weak}, {outcome.live_s:.1f} s, {outcome.folder}"
    return "\n".join([head, *_verdict_lines(verdict)])


def _runs_text(outcomes: list[Outcome]) -> str:
    says = Counter(outcome.verdict.says for outcome in outcomes)
    valid = says["kept"] + says["broken"]
    low, high = wilson(says["broken"], valid) if valid else (0.0, 1.0)
    median_s = statistics.median(outcome.live_s for outcome in outcomes)
    return (
        f"{says['broken']} of {valid} runs broken ({low:.0%} to {high:.0%}, 95% Wilson), "
        f"{says['invalid']} invalid, median {median_s:.1f} s"
    )


def _check(arguments: argparse.Namespace) -> int:
    history = History.load(arguments.history)
    verdict = judge(history)
    if arguments.json:
        print(json.dumps({"schema": 1} | _verdict_json(verdict), indent=1))
    else:
        print("\n".join([verdict.says, *_verdict_lines(verdict), *story(history)]))
    return {"kept": EXIT_KEPT, "broken": EXIT_BROKEN, "invalid": EXIT_PROVED_NOTHING}[verdict.says]


# -------------------------------------------------------------------------------------------------------- replay, mark


def _graphs(names: list[str]) -> list[GraphSpec]:
    """The graphs given; else the ready-made ones and every graph file here that can be read."""
    if names:
        return [load_graph(name) for name in names]
    found = [load_graph(name) for name in built_in_graphs()]
    for path in sorted(Path.cwd().glob("*.toml")):
        try:
            found.append(load_graph(str(path)))
        except InputError:
            continue  # some other tool's TOML file
    return found


def _corpora(arguments: argparse.Namespace) -> list[tuple[Corpus, list[GraphSpec]]]:
    specs = _graphs(arguments.graph)
    folders: dict[Path, list[GraphSpec]] = {}
    for spec in specs:
        folders.setdefault(corpus_folder(spec, arguments.chaos_corpus), []).append(spec)
    return [(Corpus(folder), specs) for folder, specs in folders.items()]


def _find(arguments: argparse.Namespace, name: str) -> tuple[Corpus, Case, GraphSpec | None]:
    """A case by id or file, with the graph that it is of, if that is known here."""
    path = Path(name)
    if path.suffix == ".json":
        if not path.is_file():
            raise InputError(f"{name}: no such file")
        case = read_case(name, path.read_text(encoding="utf-8"))
        specs = [spec for spec in _graphs(arguments.graph) if case.is_of(spec)]
        beside = list(path.resolve().parent.parent.glob("*.toml"))
        specs += [spec for p in beside if (spec := _maybe(p)) and case.is_of(spec)]
        return Corpus(path.parent), case, specs[0] if specs else None
    corpora = _corpora(arguments)
    for corpus, specs in corpora:
        for case in corpus:
            if case.id == name:
                of = [spec for spec in specs if case.is_of(spec)]
                return corpus, case, of[0] if of else None
    known = [case.id for corpus, _ in corpora for case in corpus]
    raise InputError(
        f'no case "{name}" in {", ".join(str(c.folder) for c, _ in corpora)}; known: {", ".join(known) or "none"}'
    )


def _maybe(path: Path) -> GraphSpec | None:
    try:
        return load_graph(str(path))
    except InputError:
        return None


def _replay(arguments: argparse.Namespace) -> int:
    if bool(arguments.case) == arguments.all:
        raise InputError("replay: name cases (ids or files), or give --all")
    if arguments.runs is not None and arguments.runs < 1:
        raise InputError(f"--runs: found {arguments.runs}, expected at least 1")
    if arguments.all:
        found = [
            (corpus, case, next(spec for spec in specs if case.is_of(spec)))
            for corpus, specs in _corpora(arguments)
            for case in corpus
            if any(case.is_of(spec) for spec in specs)
        ]
    else:
        found = []
        for name in arguments.case:
            corpus, case, spec = _find(arguments, name)
            if spec is None:
                raise InputError(
                    f"{name}: is of graph {case.graph['name']}, which is not known here: give --graph FILE"
                )
            found.append((corpus, case, spec))
    if not found:
        print("no cases")
        return EXIT_KEPT
    done = _replay_found(found, arguments)
    return _replay_status(done, strict_known=arguments.strict_known)


def _replay_found(
    found: list[tuple[Corpus, Case, GraphSpec]], arguments: argparse.Namespace
) -> list[Replay]:
    done: list[Replay] = []
    rows = []
    reporter = Reporter(sys.stderr)
    budget = _budget(arguments)
    for corpus, case, spec in found:
        if arguments.dry_run:
            print(f"{case.id}  {case.graph['name']}  {case.plan.one_line()}")
            continue
        journal = Journal()
        reporter.begin(spec.name, journal, budget)
        folder = results_folder(arguments.results_dir, case.id, "replay")
        runs = arguments.runs or (RECORD_RUNS_MIN if arguments.record else None)
        with LiveLab(as_in(case, spec), folder, budget, watch=reporter) as lab:
            one = replay(case, lab, journal, runs=runs)
            reporter.clear()
            if arguments.record and one.runs:
                record(corpus, one, lab.host)
        done.append(one)
        rows.append(_row_of(one))
        if not arguments.all:
            print(_one_text(one))
    if arguments.all:
        print("\n".join(table(rows)))
    return done


def _row_of(one: Replay) -> dict[str, str]:
    last = one.case.observed[-1] if one.case.observed else None
    before = f"{last.broke}/{last.runs}" if last else "-"
    return {
        "case": one.case.id,
        "graph": one.case.graph["name"],
        "promise": one.case.promise,
        "before": before,
        "now": f"{one.broke}/{one.runs}",
        "says": _says(one),
    }


def _says(one: Replay) -> str:
    gone = one.word == "NOT REPRODUCED"
    if one.case.status == "fixed" and one.word == "REPRODUCED":
        return "BACK (was fixed)"
    if gone and one.case.status in ("open", "known"):
        return f"perhaps fixed -> graphquake mark {one.case.id} fixed"
    return one.word.lower()


def _one_text(one: Replay) -> str:
    lines = [one.line]
    if one.differs:
        lines.append(f"differs: {', '.join(one.differs)}")
    lines += [f"also seen: {other}" for other in one.others]
    if one.shown is not None and one.shown.folder is not None:
        lines.append(f"files: {one.shown.folder}")
    return "\n".join(lines)


def _replay_status(done: list[Replay], *, strict_known: bool) -> int:
    words = {one.word for one in done if one.case.status != "known"}
    gone = any(one.word == "NOT REPRODUCED" and one.case.status == "known" for one in done)
    known_seen = any(one.word == "REPRODUCED" for one in done)
    if "REPRODUCED" in words or (known_seen and len(done) == 1) or (strict_known and gone):
        return EXIT_BROKEN
    if any(one.word in ("UNDECIDED", "INVALID") for one in done):
        return EXIT_PROVED_NOTHING
    return EXIT_KEPT


def _mark(arguments: argparse.Namespace) -> int:
    corpus, case, _ = _find(arguments, arguments.case)
    why = arguments.why or case.why
    if arguments.status == "known" and not why:
        raise InputError(
            f"mark {case.id} known: --why is missing: a known case says why it is known"
        )
    status: Status = next(mark for mark in MARKS if mark == arguments.status)
    path = corpus.keep(replace(case, status=status, why=why))
    print(f"{path}: {case.status} -> {status}")
    return EXIT_KEPT


if __name__ == "__main__":
    sys.exit(main())

"""The commands for cases: `replay` and `mark`."""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from graphquake.harness.errors import (
    EXIT_BROKEN,
    EXIT_KEPT,
    EXIT_PROVED_NOTHING,
    InputError,
)
from graphquake.harness.history.host import Host
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.spec.graph import GraphSpec, built_in_graphs, load_graph, read_graph
from graphquake.harness.spec.plan import Plan
from graphquake.harness.spec.steps.network.fault import LinkFault
from graphquake.harness.spec.table import one_of
from graphquake.machines.cases.case import Case, Status
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.cases.replay import CaseReplay, Replay, meaning_of, runs_needed
from graphquake.machines.frontends.cli_options import (
    add_budget,
    add_cases,
    add_results_dir,
    budget_of,
)
from graphquake.machines.reports.finding_text import table
from graphquake.machines.reports.reporter import Reporter
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.live_runner import LiveRunner
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.sessions.checks import check_machine
from graphquake.machines.sessions.folders import (
    check_writable,
    corpus_folder,
    open_corpus,
    runs_folder,
    save_case,
)
from graphquake.machines.sessions.session import record

RECORD_RUNS_MIN: Final = 5
MARKS: Final[tuple[Status, ...]] = ("open", "known", "fixed")


def replay_options(command: argparse.ArgumentParser) -> None:
    """Register the arguments of `replay`."""
    command.add_argument("case", nargs="*", metavar="ID|FILE", help="the id of a case, or its file")
    command.add_argument(
        "--all",
        action="store_true",
        help="replay every case of the graphs given with --graph, or of the ready-made graphs and the graph files here",
    )
    command.add_argument(
        "--record",
        action="store_true",
        help="add the result to the case; makes at least 5 runs unless --runs is given",
    )
    command.add_argument(
        "--runs", type=int, metavar="N", help="the number of runs (as many as a sure answer takes)"
    )
    command.add_argument(
        "--today",
        action="store_true",
        help="use the bounds and the load of the graph file, not those of the case",
    )
    add_cases(command)
    command.add_argument(
        "--strict-known",
        action="store_true",
        help="fail if a known case no longer breaks its promise",
    )
    command.add_argument("--dry-run", action="store_true", help="print the plans; start nothing")
    add_results_dir(command)
    add_budget(command)


def mark_options(command: argparse.ArgumentParser) -> None:
    """Register the arguments of `mark`."""
    command.add_argument("case", metavar="ID|FILE", help="the id of a case, or its file")
    command.add_argument("status", choices=MARKS, help="the new status")
    command.add_argument("--why", default="", help="a reason or a link; a known case needs one")
    add_cases(command)


# --------------------------------------------------------------------------------------------------------------- lookup


def _graphs(names: list[str]) -> list[GraphSpec]:
    """The graphs with these names. Without names, the ready-made ones and those in the working folder.

    Raises:
        InputError: if a graph's file is wrong.
    """
    if names:
        return [load_graph(name) for name in names]
    return [*map(load_graph, built_in_graphs()), *_graphs_in(Path.cwd())]


def _graphs_in(folder: Path) -> list[GraphSpec]:
    """The graphs in a folder. TOML files of other tools are left out. A graph file with a mistake is an `InputError`."""
    return [load_graph(str(path)) for path in sorted(folder.glob("*.toml")) if _is_graph_file(path)]


def _is_graph_file(path: Path) -> bool:
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        # A graph file with a TOML error must not be left out. Its key `graph` stands before its first table.
        return re.search(r"^graph\s*=", f"\n{text}".partition("\n[")[0], re.MULTILINE) is not None
    return "graph" in document or "roles" in document


def _corpora(arguments: argparse.Namespace) -> list[tuple[Corpus, list[GraphSpec]]]:
    """Every corpus of the graphs that are named or found, with the graphs whose cases are in it."""
    folders: dict[Path, list[GraphSpec]] = {}
    for spec in _graphs(arguments.graph):
        folders.setdefault(corpus_folder(spec, arguments.chaos_corpus), []).append(spec)
    ready_made = built_in_graphs().values()
    found = []
    for own in folders.values():
        # A ready-made graph also has the cases that came with graphquake.
        spec = max(own, key=lambda spec: spec.path in ready_made)
        found.append((open_corpus(spec, arguments.chaos_corpus), own))
    return found


class _Found(NamedTuple):
    """A case with its corpus and its graph. The graph is None if it was neither named nor found."""

    corpus: Corpus
    case: Case
    spec: GraphSpec | None


def _found(corpus: Corpus, case: Case, specs: Iterable[GraphSpec]) -> _Found:
    return _Found(corpus, case, next((spec for spec in specs if case.is_of(spec)), None))


def find_case(arguments: argparse.Namespace, name: str) -> _Found:
    """Find a case by its id or its file.

    Raises:
        InputError: if the case does not exist, or a graph file is wrong.
    """
    path = Path(name)
    return _in_file(arguments, path) if path.suffix == ".json" else _by_id(arguments, name)


def _in_file(arguments: argparse.Namespace, path: Path) -> _Found:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    corpus = Corpus(path.parent, only=path.name)
    (case,) = corpus
    # The folder of the cases lies beside the graph file.
    beside = path.resolve().parent.parent
    return _found(corpus, case, chain(_graphs(arguments.graph), _graphs_in(beside)))


def _by_id(arguments: argparse.Namespace, name: str) -> _Found:
    corpora = _corpora(arguments)
    cases = [(corpus, case, specs) for corpus, specs in corpora for case in corpus]
    for corpus, case, specs in cases:
        if case.id == name:
            return _found(corpus, case, specs)
    folders = ", ".join(str(corpus.folder) for corpus, _ in corpora)
    known = ", ".join(case.id for _, case, _ in cases) or "none"
    raise InputError(f'no case "{name}" in {folders}; known: {known}')


def _all_cases(arguments: argparse.Namespace) -> list[_Found]:
    """Every case of the graphs that are named or found (see `_graphs`)."""
    found = (
        _found(corpus, case, specs) for corpus, specs in _corpora(arguments) for case in corpus
    )
    return [one for one in found if one.spec is not None]


# --------------------------------------------------------------------------------------------------------------- replay


def replay_cases(arguments: argparse.Namespace) -> int:
    """Run `graphquake replay`, and return the exit status."""
    if bool(arguments.case) == arguments.all:
        raise InputError("replay: name cases (ids or files), or give --all")
    if arguments.runs is not None and arguments.runs < 1:
        raise InputError(f"--runs: found {arguments.runs}, expected at least 1")
    if arguments.today and arguments.record:
        raise InputError(
            "replay: found --today and --record, expected one of them: the counts of a case belong to its own bounds and load"
        )
    named = [find_case(arguments, name) for name in arguments.case]
    for one in named:
        if one.spec is None:
            raise InputError(
                f"case {one.case.id} is for the graph {one.case.graph['name']}, which was not found here. Name its file with --graph FILE."
            )
    found = _all_cases(arguments) if arguments.all else _distinct(named)
    if not found:
        folders = ", ".join(str(corpus.folder) for corpus, _ in _corpora(arguments))
        print(f"no cases of these graphs in {folders}")
        return EXIT_KEPT
    done = _replay_found(found, arguments)
    alone = not arguments.all and len(found) == 1
    return _replay_status(done, alone=alone, strict_known=arguments.strict_known)


def _distinct(found: list[_Found]) -> list[_Found]:
    """The cases without repetition. One case may be named twice, or by its id and by its file."""
    return list({(one.corpus.folder.resolve(), one.case.id): one for one in found}.values())


def _replay_found(found: list[_Found], arguments: argparse.Namespace) -> list[Replay]:
    if arguments.dry_run:
        for _, case, _ in found:
            print(f"{case.id}  {case.graph['name']}  {case.plan.one_line()}")
        return []
    for corpus, _, _ in found if arguments.record else ():
        check_writable(corpus.folder, "replay --record")
    done: list[Replay] = []
    budget, reporter = budget_of(arguments), Reporter(sys.stderr)
    try:
        for one in found:
            result, host = _replay_one(one, arguments, budget, reporter)
            done.append(result)
            if not arguments.all:
                print(_one_text(result))
            if arguments.record and result.runs:
                record(one.corpus, result, host)
    finally:
        # What was seen is printed also if an error ends the command.
        if arguments.all and done:
            print("\n".join(_all_text(done, today=arguments.today)))
    return done


def with_network_for(spec: GraphSpec, plan: Plan) -> GraphSpec:
    """Return the graph with network namespaces if the plan needs them. The search that found the case may have had them by an option."""
    if spec.network != "host" or not any(isinstance(step, LinkFault) for step in plan.steps):
        return spec
    return read_graph(spec.path.name, {**spec.document, "network": "namespaces"}, spec.path)


def _replay_one(
    found: _Found, arguments: argparse.Namespace, budget: Budget, reporter: Reporter
) -> tuple[Replay, Host]:
    """Replay one case, and return the result and the machine."""
    _, case, spec = found
    assert spec is not None
    spec = on_this_machine(with_network_for(spec, case.plan))
    check_machine(spec)
    journal = RunLog()
    reporter.begin(spec.name, journal, budget)
    folder = runs_folder(arguments.results_dir, case.id, "replay")
    enough = max(RECORD_RUNS_MIN, runs_needed(case)) if arguments.record else None
    judged_by = spec if arguments.today else case.as_in(spec)
    with LiveRunner(judged_by, folder, budget, watch=reporter) as runner:
        one = CaseReplay(case, runner, journal, now=spec, runs=arguments.runs or enough).finish()
        reporter.clear()
        return one, runner.host


def _all_text(done: list[Replay], *, today: bool) -> Iterator[str]:
    yield from table(map(_row_of, done))
    changed = [one for one in done if one.changed]
    whose = "the graph file's" if today else "each case's own"
    yield f"bounds and load: {whose}" + ("" if changed else "; the graph files and the cases agree")
    for one in changed:
        yield f"  {one.case.id}: the graph file now says {', '.join(one.changed)}"


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
    return one.why or one.word.lower()


def _one_text(one: Replay) -> str:
    lines = [one.line, f"bounds and load: {one.conditions}"]
    if one.differs:
        lines.append(f"differs: {', '.join(one.differs)}")
    lines += [f"also seen: {other}" for other in one.others]
    if one.shown is not None and one.shown.folder is not None:
        lines.append(f"files: {one.shown.folder}")
    return "\n".join(lines)


def _replay_status(done: list[Replay], *, alone: bool, strict_known: bool) -> int:
    fails = any(meaning_of(one)[0] for one in done)
    # If one case is named, the exit status only says whether its plan still breaks its promise. The status of the case does not matter.
    there = alone and any(one.word == "REPRODUCED" for one in done)
    gone = any(one.word == "NOT REPRODUCED" and one.case.status == "known" for one in done)
    if fails or there or (strict_known and gone):
        return EXIT_BROKEN
    if any(one.word in ("UNDECIDED", "INVALID") for one in done):
        return EXIT_PROVED_NOTHING
    return EXIT_KEPT


def mark_case(arguments: argparse.Namespace) -> int:
    """Run `graphquake mark`, and return the exit status."""
    corpus, case, _ = find_case(arguments, arguments.case)
    why = arguments.why or case.why
    if arguments.status == "known" and not why:
        raise InputError(f"mark {case.id} known: give --why: a known case needs a reason")
    # The parser of arguments allows no other words.
    status = one_of(arguments.status, MARKS)
    assert status is not None
    path = save_case(corpus, replace(case, status=status, why=why))
    print(f"{path}: {case.status} -> {status}")
    return EXIT_KEPT

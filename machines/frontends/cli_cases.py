"""The commands about cases: `replay` and `mark`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from graphquake.harness.errors import (
    EXIT_BROKEN,
    EXIT_KEPT,
    EXIT_PROVED_NOTHING,
    InputError,
)
from graphquake.harness.spec.graph import GraphSpec, built_in_graphs, load_graph
from graphquake.machines.cases.case import Case, Status
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.cases.replay import Replay, meaning_of, replay, runs_needed
from graphquake.machines.reports.finding_text import table
from graphquake.machines.reports.progress import Reporter
from graphquake.machines.runners.budget import UNLIMITED, Budget, parse_limit
from graphquake.machines.runners.journal import Journal
from graphquake.machines.runners.runner import LiveRunner
from graphquake.machines.sessions.session import corpus_folder, open_corpus, record, results_folder

RECORD_RUNS_MIN: Final = 5
MARKS: Final[tuple[Status, ...]] = ("open", "known", "fixed")


def budget_of(arguments: argparse.Namespace) -> Budget:
    """The budget that `--chaos-budget` gives; without it there is no bound.

    Raises:
        InputError: if it is no duration.
    """
    try:
        limit = parse_limit(arguments.chaos_budget) if arguments.chaos_budget else UNLIMITED
    except ValueError as error:
        raise InputError(f"--chaos-budget: {error}") from None
    return limit.begin()


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
    ready_made = built_in_graphs().values()
    return [
        # Those that came with graphquake are there for the ready-made ones.
        (
            open_corpus(max(own, key=lambda spec: spec.path in ready_made), arguments.chaos_corpus),
            own,
        )
        for own in folders.values()
    ]


def _find(arguments: argparse.Namespace, name: str) -> tuple[Corpus, Case, GraphSpec | None]:
    """A case by id or file, with the graph that it is of, if that is known here."""
    path = Path(name)
    if path.suffix == ".json":
        if not path.is_file():
            raise InputError(f"{name}: no such file")
        corpus = Corpus(path.parent, only=path.name)
        (case,) = corpus
        specs = [spec for spec in _graphs(arguments.graph) if case.is_of(spec)]
        beside = list(path.resolve().parent.parent.glob("*.toml"))
        specs += [spec for p in beside if (spec := _maybe(p)) and case.is_of(spec)]
        return corpus, case, specs[0] if specs else None
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


def replay_cases(arguments: argparse.Namespace) -> int:
    """`graphquake replay`; returns the exit status."""
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
    budget = budget_of(arguments)
    for corpus, case, spec in found:
        if arguments.dry_run:
            print(f"{case.id}  {case.graph['name']}  {case.plan.one_line()}")
            continue
        journal = Journal()
        reporter.begin(spec.name, journal, budget)
        folder = results_folder(arguments.results_dir, case.id, "replay")
        enough = max(RECORD_RUNS_MIN, runs_needed(case)) if arguments.record else None
        runs = arguments.runs or enough
        with LiveRunner(case.as_in(spec), folder, budget, watch=reporter) as runner:
            one = replay(case, runner, journal, runs=runs)
            reporter.clear()
            if arguments.record and one.runs:
                record(corpus, one, runner.host)
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
    return one.why or one.word.lower()


def _one_text(one: Replay) -> str:
    lines = [one.line]
    if one.differs:
        lines.append(f"differs: {', '.join(one.differs)}")
    lines += [f"also seen: {other}" for other in one.others]
    if one.shown is not None and one.shown.folder is not None:
        lines.append(f"files: {one.shown.folder}")
    return "\n".join(lines)


def _replay_status(done: list[Replay], *, strict_known: bool) -> int:
    fails = any(meaning_of(one)[0] for one in done)
    # Whoever asks for one case asks whether it is there.
    there = len(done) == 1 and done[0].word == "REPRODUCED"
    gone = any(one.word == "NOT REPRODUCED" and one.case.status == "known" for one in done)
    if fails or there or (strict_known and gone):
        return EXIT_BROKEN
    if any(one.word in ("UNDECIDED", "INVALID") for one in done):
        return EXIT_PROVED_NOTHING
    return EXIT_KEPT


def mark_case(arguments: argparse.Namespace) -> int:
    """`graphquake mark`; returns the exit status."""
    corpus, case, _ = _find(arguments, arguments.case)
    why = arguments.why or case.why
    if arguments.status == "known" and not why:
        raise InputError(
            f"mark {case.id} known: --why is missing: a known case says why it is known"
        )
    status: Status = next(mark for mark in MARKS if mark == arguments.status)
    path = corpus.save(replace(case, status=status, why=why))
    print(f"{path}: {case.status} -> {status}")
    return EXIT_KEPT

"""One graph's part of a session: its cases first, then the search, then the summary.

The pytest plugin and the commands use this module. They differ only in where they print.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from graphquake.harness.clients.answers import find_oracle
from graphquake.harness.errors import GraphquakeError, InputError
from graphquake.harness.history.host import Host
from graphquake.harness.processes.resources.gpus import visible_gpus
from graphquake.harness.promises.builtin import promises_of
from graphquake.harness.spec.functions import described
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.templates.environment import check_environment
from graphquake.machines.cases.case import Case
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.cases.replay import Replay, impossible, recorded, replay
from graphquake.machines.findings.artifacts import RunArchive
from graphquake.machines.findings.finding import Finding
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.rounds import Rounds
from graphquake.machines.plans.machine import PlanMachine
from graphquake.machines.reports.finding_text import counted, finding_text, held_line
from graphquake.machines.reports.index_page import RUNS, part_folder, write_index
from graphquake.machines.reports.reporter import Reporter
from graphquake.machines.reports.summary import GraphSummary
from graphquake.machines.runners.budget import UNLIMITED, Budget, Limit
from graphquake.machines.runners.live_runner import LiveRunner
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import RunResult
from graphquake.machines.sessions.folders import (
    check_writable,
    corpus_folder,
    open_corpus,
    results_folder,
    save_case,
)
from graphquake.machines.sessions.price import read_price, write_price
from graphquake.machines.sessions.search import draw_plans, plans_of_sweep, search

DRY_RUN_PLANS: Final = 5
# The number of findings after which a search ends, unless the user says otherwise.
FINDINGS_MAX: Final = 10
# The folder of the runs of replayed cases.
REPLAYS: Final = "replays"
# The share of the remaining budget that the replay of one case may take.
REPLAY_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a session.

    Attributes:
        seed: the seed from which the plans are drawn.
        results_dir: the folder for journals, runs and summaries.
        shrink_limit: the limit of each shrink.
        replay_limit: the limit of each case's replay.
        findings_max: the search ends after this many new findings.
        corpus: the folder of the cases. None means the graph's own folder.
        keep_failed: if true, the folder of a broken or invalid run is never removed.
        strict: if true, an unconfirmed finding fails the session.
        strict_known: if true, a known case that does not break its promise any more fails the session.
        slots: the number of graphs that run side by side. None means as many as this machine carries.
        shrink_any: if true, a shrink may end at a plan that breaks another promise (see `FindingPipeline`).
        shard: the part of the search that this process does, from 0 (see `shards`).
        folder: the name of the session's folder in the results folder. If it is empty, it is the graph's name.
    """

    seed: int
    results_dir: Path
    shrink_limit: Limit = UNLIMITED
    replay_limit: Limit = UNLIMITED
    findings_max: int = FINDINGS_MAX
    corpus: Path | None = None
    keep_failed: bool = False
    strict: bool = False
    strict_known: bool = False
    slots: int | None = None
    shrink_any: bool = False
    shard: int = 0
    folder: str = ""


def check_machine(spec: GraphSpec, graphs: int = 1) -> None:
    """Check that this machine has the environment variables and GPUs that a graph asks for.

    Args:
        spec: the graph.
        graphs: how many of this graph run side by side.

    Raises:
        InputError: if a variable is not set, or there are too few GPUs. The message says what is missing.
    """
    check_environment(spec)
    check_gpus(spec, graphs)


def check_functions(spec: GraphSpec) -> None:
    """Check that the user's own promises and oracle can be imported and called.

    Raises:
        InputError: if one of them can't be.
    """
    promises_of(spec)
    find_oracle(spec)


def check_gpus(spec: GraphSpec, graphs: int = 1) -> None:
    """Check that this machine has the GPUs that a graph asks for.

    Args:
        spec: the graph. On a machine without GPUs, its roles with `cpu_ok` need none.
        graphs: how many of this graph run side by side.

    Raises:
        InputError: if there are too few. The message says how many there are, how many are needed, and which option needs fewer.
    """
    there = len(visible_gpus())
    roles = [role for role in spec.roles if role.gpus and not (role.cpu_ok and not there)]
    shared = max((role.gpus for role in roles), default=0)
    apart = graphs * sum(role.gpus * role.replicas for role in roles)
    needed = shared if spec.share_gpus else apart
    if needed <= there:
        return
    what = f"{spec.name} needs" if graphs == 1 else f"{graphs} of {spec.name} side by side need"
    hint = ""
    if not spec.share_gpus and shared <= there:
        hint = " Use --share-gpus (pytest: --chaos-share-gpus) to share them."
    raise InputError(
        f"{what} {counted(needed, 'GPU')}, but CUDA_VISIBLE_DEVICES or /dev shows {there}.{hint}"
    )


@dataclass(slots=True)
class Session:
    """One graph's part of a session.

    Attributes:
        spec: the graph.
        options: the options of the session.
        budget: the budget of replays and search together.
        reporter: shows progress and findings.
        base: the class of the machine that draws the plans.
        summary: the result, filled in when the session ends.
        corpus: the graph's cases.

    Raises:
        InputError: if a promise, an oracle or a case cannot be loaded, or a folder cannot be written.
    """

    spec: GraphSpec
    options: Options
    budget: Budget
    reporter: Reporter
    base: type[PlanMachine] = PlanMachine
    summary: GraphSummary = field(init=False)
    corpus: Corpus = field(init=False)
    _rounds: Rounds | None = None

    def __post_init__(self) -> None:
        # The user's promises, oracle and cases are loaded now, so that an error in them shows before a process is started.
        check_functions(self.spec)
        check_writable(self.options.results_dir, "--chaos-results-dir")
        check_writable(corpus_folder(self.spec, self.options.corpus), "--chaos-corpus")
        self.corpus = open_corpus(self.spec, self.options.corpus)
        self.summary = GraphSummary(
            self.spec.name,
            self.options.seed,
            total_s=self.budget.total_s,
            strict_known=self.options.strict_known,
            shard=self.options.shard,
            folder=self.options.folder or self.spec.name,
        )

    @property
    def folder(self) -> Path:
        """The folder for the files of this process: a shard after the first one has its own (see `part_folder`)."""
        folder = results_folder(self.options.results_dir, self.summary.folder)
        return part_folder(folder, self.options.shard)

    def go(self) -> GraphSummary:
        """Replay the graph's cases, then search until the budget is spent.

        If Ctrl-C or an error ends the session, `summary` still covers everything up to that moment.
        """
        log = RunLog(self.folder / "journal.jsonl")
        with ExitStack() as stack:
            stack.callback(log.close)
            stack.callback(self.reporter.clear)
            # Each search numbers its runs from 1, so the folders of an earlier search are removed first.
            for old in (RUNS, REPLAYS):
                shutil.rmtree(self.folder / old, ignore_errors=True)
            archive = RunArchive(spare_shown=self.options.keep_failed)
            gpus = 0
            try:
                runner = stack.enter_context(
                    self._runner(self.spec, self.budget, RUNS, archive.add, self.options.slots)
                )
                gpus = runner.gpus
                self.reporter.begin(self.spec.name, log, self.budget, gpus)
                self.summary.versions = dict(runner.host.versions)
                unshrunk = [
                    case
                    for case in self._cases()
                    if case.status == "unshrunk" and not impossible(case, self.spec)
                ]
                for case in self._cases():
                    if case not in unshrunk:
                        self.summary.replays.append(self._replay(case, log))
                pipeline = FindingPipeline(
                    runner,
                    self.corpus,
                    log,
                    results_dir=self.options.results_dir,
                    strict=self.options.strict,
                    shrink_any=self.options.shrink_any,
                    shrink_limit=self.options.shrink_limit,
                    on_finding=self._found,
                    on_held=self._held,
                )
                rounds = self._begin(pipeline)
                self.summary.ended = search(
                    rounds,
                    self.options.seed,
                    findings_max=self.options.findings_max,
                    base=self.base,
                    shard=self.options.shard,
                    unshrunk=unshrunk,
                )
            except BaseException as error:
                self.summary.error = _why_ended(error)
                raise
            finally:
                self._sum_up(log, gpus)
                write_index(self.summary, self.folder)
        return self.summary

    def _begin(self, pipeline: FindingPipeline) -> Rounds:
        """Begin a search that knows what a run cost in the search before."""
        rounds = self._rounds = Rounds(pipeline)
        if (run_s := read_price(self.folder)) is not None:
            rounds.novelty.price(run_s)
        return rounds

    def _cases(self) -> list[Case]:
        """The cases that this process replays: all of them in the first shard, none in the others."""
        return [] if self.options.shard else self.corpus.of(self.spec)

    def _runner(
        self,
        spec: GraphSpec,
        budget: Budget,
        folder: str,
        put_away: Callable[[RunResult], None] | None = None,
        slots: int | None = 1,
    ) -> LiveRunner:
        return LiveRunner(
            spec,
            self.folder / folder,
            budget,
            watch=self.reporter,
            put_away=put_away,
            slots=slots,
            say=self.reporter.line,
        )

    def _replay(self, case: Case, log: RunLog) -> Replay:
        limit, budget = self.options.replay_limit, self.budget.share(REPLAY_SHARE)
        budget.total_s = min(budget.total_s, limit.seconds)
        budget.total_runs = min(budget.total_runs, limit.runs)
        with self._runner(case.as_in(self.spec), budget, f"{REPLAYS}/{case.id}") as runner:
            return replay(case, runner, log, spec=self.spec)

    def _held(self, finding: Finding) -> None:
        self._count_findings()
        self.reporter.line(held_line(finding))

    def _found(self, finding: Finding) -> None:
        self._count_findings()
        self.reporter.line(f"\n{finding_text(finding)}\n")

    def _count_findings(self) -> None:
        if self._rounds is not None:
            self.reporter.findings = self._rounds.pipeline.found

    def _sum_up(self, log: RunLog, gpus: int) -> None:
        summary = self.summary
        summary.spent_s = self.budget.spent_s
        summary.live = dict(log.live)
        summary.causes = dict(log.causes)
        summary.drawn = dict(log.drawn)
        summary.run_s = list(log.run_s)
        summary.gpu_s = gpus * log.live_s
        summary.weak, summary.idle, summary.unserved = log.weak, log.idle, dict(log.unserved)
        summary.in_vain, summary.made_good = log.in_vain, log.made_good
        summary.excused, summary.excused_runs = log.excused, log.excused_runs
        summary.unneeded = log.unneeded
        summary.hidden = dict(log.explained)
        summary.hidden_text = {case.id: _hides(case) for case in self.corpus}
        if (rounds := self._rounds) is not None:
            summary.tried, summary.not_tried = rounds.coverage.tried(), rounds.coverage.not_tried()
            summary.findings = list(rounds.pipeline.findings)
            write_price(self.folder, rounds.run_s)


def _why_ended(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, GraphquakeError):
        return f"ended by an error: {error}"
    return f"crashed: {described(error)}"


def _hides(case: Case) -> str:
    return f'{case.promise} after "{case.plan.one_line()}" ({case.status} {case.id})'


def record(corpus: Corpus, one: Replay, host: Host) -> None:
    """Add the result of a replay to its case, and save the case.

    Raises:
        InputError: if the case can't be written.
    """
    today = dt.datetime.now(dt.UTC).date().isoformat()
    save_case(corpus, recorded(one.case, one.observed(today, host)))


def dry_run(
    spec: GraphSpec, options: Options, say: Callable[[str], None], base: type[PlanMachine]
) -> None:
    """Print the plans of the sweep, and the first drawn plans of a search. No process is started."""
    check_functions(spec)
    say(f"{spec.name} · seed {options.seed} · {spec.shape} · dry run: nothing is started")
    for number, plan in enumerate(plans_of_sweep(spec, options.seed, base), 1):
        say(f"sweep {number}  {plan.one_line()}")
    for number, plan in enumerate(draw_plans(spec, options.seed, DRY_RUN_PLANS, base), 1):
        say(f"plan {number}")
        for line in plan.lines():
            say(f"  {line}")

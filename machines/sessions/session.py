"""One graph's part of a session: its cases first, then the search, then the summary.

The pytest plugin and the commands use this module. They differ only in where they print.
"""

from __future__ import annotations

import datetime as dt
import math
import shutil
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from graphquake.harness.errors import GraphquakeError
from graphquake.harness.history.host import Host
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.run.status import RunStatus
from graphquake.harness.spec.feasible import left_out_text
from graphquake.harness.spec.functions import described
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.case import Case
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.cases.replay import CaseReplay, Replay, impossible, recorded
from graphquake.machines.cases.replay_budgets import replay_budgets
from graphquake.machines.findings.artifacts import RunArchive
from graphquake.machines.findings.finding import Finding
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.rounds import Rounds
from graphquake.machines.plans.machine import PlanMachine
from graphquake.machines.reports.finding_text import counted, finding_text, held_line
from graphquake.machines.reports.index_page import RUNS, part_folder, write_index
from graphquake.machines.reports.reporter import Reporter
from graphquake.machines.reports.summary import GraphSummary
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.live_runner import LiveRunner
from graphquake.machines.runners.on_ray.cluster import ray_runner
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.run_observer import RunObserver
from graphquake.machines.runners.run_tally import RunTally
from graphquake.machines.runners.runner import RunResult
from graphquake.machines.sessions.checks import check_alone, check_functions
from graphquake.machines.sessions.folders import (
    check_writable,
    corpus_folder,
    open_corpus,
    results_folder,
    save_case,
)
from graphquake.machines.sessions.live_state import LiveState, Sources, StateWriter
from graphquake.machines.sessions.price import read_price, write_price
from graphquake.machines.sessions.resume import Earlier, read_earlier
from graphquake.machines.sessions.search import draw_plans, plans_of_sweep, search
from graphquake.machines.sessions.session_options import Options

DRY_RUN_PLANS: Final = 5
# At least so many replays are begun before the first of them is awaited. The number of slots is not known before the first run.
REPLAYS_AHEAD: Final = 2


@dataclass(slots=True)
class Session:
    """One graph's part of a session.

    Attributes:
        spec: the graph.
        options: the options of the session.
        budget: the budget of replays and search together.
        reporter: shows progress and findings.
        base: the class of the machine that draws the plans.
        observers: observe each live run.
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
    observers: Sequence[RunObserver] = ()
    summary: GraphSummary = field(init=False)
    corpus: Corpus = field(init=False)
    _rounds: Rounds | None = None
    _earlier: Earlier | None = None
    _state: StateWriter | None = None
    _tally: RunTally = field(default_factory=RunTally)

    def __post_init__(self) -> None:
        self.spec = on_this_machine(self.spec)
        check_alone(self.spec, self.options.slots, self.options.shard)
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
        if self.options.resume:
            self._resume()

    def _resume(self) -> None:
        """Take over the seed and the runs of the earlier part of this search, and take its cost from the budget."""
        options = self.options
        seed = options.seed if options.seed_is_given else None
        self._earlier = read_earlier(self.folder, self._journal, self.spec, seed)
        if self._earlier is None:
            self.reporter.line(f"{self.spec.name}: no search began here, so it begins now")
            return
        self._earlier.spend(self.budget)
        self.options = replace(options, seed=self._earlier.state.seed)
        self.summary.seed = self.options.seed
        self.reporter.line(
            f"{self.spec.name}: goes on after {counted(self._earlier.runs, 'run')}, with seed {self.options.seed}"
        )

    @property
    def _journal(self) -> Path:
        return self.folder / "journal.jsonl"

    @property
    def folder(self) -> Path:
        """The folder for the files of this process: a shard after the first one has its own (see `part_folder`)."""
        folder = results_folder(self.options.results_dir, self.summary.folder)
        return part_folder(folder, self.options.shard)

    def run(self) -> GraphSummary:
        """Replay the graph's cases, then search until the budget is spent.

        If Ctrl-C or an error ends the session, `summary` still covers everything up to that moment.
        """
        log = RunLog(self._journal, goes_on=self._earlier is not None)
        with ExitStack() as stack:
            stack.callback(log.close)
            stack.callback(self.reporter.clear)
            if self._earlier is None:
                # Each search numbers its runs from 1, so the folders of an earlier search are removed first.
                shutil.rmtree(self.folder / RUNS, ignore_errors=True)
            sources = Sources(self.budget, log, self._tally)
            self._state = StateWriter(self.folder, self._first_state(), sources)
            # Also between two runs: a graph may take long to start.
            self._tally.on_change = self._state.write
            archive = RunArchive(spare_shown=self.options.keep_failed)
            gpus = 0
            try:
                runner = stack.enter_context(self._runner(archive.add))
                gpus, sources.runner = runner.gpus, runner
                self.reporter.begin(self.spec.name, log, self.budget, gpus)
                self._say_left_out()
                self.summary.versions = dict(runner.host.versions)
                unshrunk = self._replay_cases(runner, log)
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
                sources.findings = pipeline.findings
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
                self._state.end(self.summary.error or self.summary.ended)
                write_index(self.summary, self.folder)
        return self.summary

    def _replay_cases(self, runner: LiveRunner, log: RunLog) -> list[Case]:
        """Replay the cases. Return those whose shrink an earlier search did not finish: these are not replayed."""
        cases = self._cases()
        unshrunk = [
            case for case in cases if case.status == "unshrunk" and not impossible(case, self.spec)
        ]
        replayed = [case for case in cases if case not in unshrunk]
        begun = deque[CaseReplay]()
        for case, share in replay_budgets(
            replayed, self.budget, strict_known=self.options.strict_known
        ):
            begun.append(self._replay(case, runner, log, share))
            if self.options.replay_limit.begin().has_room(0.0):
                begun[-1].begin()
            if len(begun) >= max(REPLAYS_AHEAD, runner.slots):
                self.summary.replays.append(begun.popleft().finish())
        while begun:
            self.summary.replays.append(begun.popleft().finish())
        return unshrunk

    def _say_left_out(self) -> None:
        """Name the steps that are left out, once in a search: the other shards leave out the same."""
        if (text := left_out_text(self.spec)) and not self.options.shard:
            self.reporter.line(f"{self.spec.name}: left out: {text}")

    def _begin(self, pipeline: FindingPipeline) -> Rounds:
        """Begin a search that knows the cost of a run from the search before."""
        rounds = self._rounds = Rounds(pipeline)
        if (run_s := read_price(self.folder)) is not None:
            rounds.novelty.price(run_s)
        if self._earlier is not None:
            rounds.pass_over(self._earlier.kept)
        return rounds

    def _cases(self) -> list[Case]:
        """The cases that this process replays: all of them in the first shard, none in the others."""
        return [] if self.options.shard else self.corpus.of(self.spec)

    def _runner(self, put_away: Callable[[RunResult], None]) -> LiveRunner:
        asked = self.options.on_ray
        make: Callable[..., LiveRunner] = partial(ray_runner, asked) if asked else LiveRunner
        return make(
            self.spec,
            self.folder / RUNS,
            self.budget,
            watch=self._show,
            observers=(self._tally, *self.observers),
            put_away=put_away,
            slots=self.options.slots,
            say=self.reporter.line,
        )

    def _replay(
        self, case: Case, runner: LiveRunner, log: RunLog, share: Callable[[], Budget]
    ) -> CaseReplay:
        def limit() -> Budget:
            budget, asked = share(), self.options.replay_limit
            budget.total_s = min(budget.total_s, asked.seconds)
            budget.total_runs = min(budget.total_runs, asked.runs)
            return budget

        # A fixed bug that is back is a finding, so its run is whole.
        briefly = case.status != "fixed"
        own = case.as_in(self.spec)
        return CaseReplay(case, runner, log, own, self.spec, briefly=briefly, limit=limit)

    def _first_state(self) -> LiveState:
        total_s, total_runs = (
            None if math.isinf(one) else one
            for one in (self.budget.total_s, self.budget.total_runs)
        )
        return LiveState(
            self.spec.name, self.options.seed, budget_s=total_s, budget_runs=total_runs
        )

    def _show(self, plan: Plan, why: str, status: RunStatus) -> None:
        """Show the state of a run: on the screen, and in the file for other terminals."""
        self.reporter(plan, why, status)
        if self._state is not None:
            self._state.show(plan, why, status)

    def _held(self, finding: Finding) -> None:
        self._note(finding)
        self.reporter.line(held_line(finding))

    def _found(self, finding: Finding) -> None:
        self._note(finding)
        self.reporter.line(f"\n{finding_text(finding)}\n")

    def _note(self, finding: Finding) -> None:
        if self._rounds is not None:
            self.reporter.findings = self._rounds.pipeline.found
        if self._state is not None:
            case = finding.case
            self._state.find(case.id, f"{case.status}: {case.plan.one_line()}: {case.signature}")

    def _sum_up(self, log: RunLog, gpus: int) -> None:
        summary = self.summary
        summary.spent_s = self.budget.spent_s
        summary.live = dict(log.live)
        summary.causes = dict(log.causes)
        summary.drawn = dict(log.drawn)
        summary.run_s = list(log.run_s)
        summary.gpu_s = gpus * log.live_s
        summary.weak, summary.unserved = dict(log.weak), dict(log.unserved)
        summary.made_good = log.made_good
        summary.excused, summary.excused_runs = log.excused, log.excused_runs
        summary.unneeded, summary.nodes = log.unneeded, dict(log.nodes)
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
    spec = on_this_machine(spec)
    say(f"{spec.name} · seed {options.seed} · {spec.shape} · dry run: nothing is started")
    singles = plans_of_sweep(spec, options.seed, base)
    for number, plan in enumerate(singles.first, 1):
        say(f"sweep {number}  {plan.one_line()}")
    for number, plan in enumerate(singles.second, 1):
        say(f"second sweep {number}  {plan.one_line()}")
    for number, plan in enumerate(draw_plans(spec, options.seed, DRY_RUN_PLANS, base), 1):
        say(f"plan {number}")
        for line in plan.lines():
            say(f"  {line}")

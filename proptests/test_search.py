"""Searches on simulated graphs: from the drawn plans to the saved cases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from graphquake.harness.history.host import Host
from graphquake.harness.history.request import (
    Outcome,
)
from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Verdict, Violation
from graphquake.machines.cases.case import Case, ShrinkCost, Status
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.finding import case_of
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.rounds import Rounds, StopDrawing
from graphquake.machines.findings.sightings import Sightings
from graphquake.machines.plans import novelty
from graphquake.machines.plans.plainest import plainest
from graphquake.machines.plans.subplan import embeds
from graphquake.machines.reports.finding_text import finding_text
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.runners.runner import RunResult
from graphquake.machines.sessions.search import plans_of_sweep, search
from graphquake.machines.shrinking.result import Shrunk

from support.made import Made, plan_of, spec_of
from support.searched import PAIR, QUICK, SINGLE, searched
from support.sim_runner import Bug, SimRunner

pytestmark = pytest.mark.simulated

# So many fresh broken runs confirm a minimal plan.
CONFIRMED = 3


@pytest.fixture(autouse=True)
def every_plan_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every drawn plan, as `searched` does."""
    monkeypatch.setattr(novelty, "LOOK_MAX", 0)


@pytest.mark.parametrize("seed", range(5))
def test_a_bug_is_found_shrunk_confirmed_and_kept(tmp_path: Path, seed: int) -> None:
    """A bug that needs two kills in one order becomes a case with exactly that plan, which broke in each of its fresh runs."""
    rounds, ended = searched(SimRunner([Bug(PAIR, "wrong tokens")]), tmp_path, seed=seed)
    assert ended == "findings"
    (case,) = Corpus(tmp_path / "cases")
    assert embeds(PAIR, case.plan)
    assert len(case.plan.steps) == 2
    assert case.status == "open"
    assert case.observed[0].broke == case.observed[0].runs >= CONFIRMED
    assert rounds.pipeline.findings[0].case == case


@pytest.mark.parametrize("seed", range(10))
def test_noise_never_reaches_hypothesis(tmp_path: Path, seed: int) -> None:
    """At a rate of .3, a search never ends in an error, although the same plan is kept in one run and broken in another."""
    runner = SimRunner([Bug(SINGLE, "wrong tokens", rate=0.3)], seed=seed, runs_max=400)
    rounds, ended = searched(runner, tmp_path, seed=seed)
    assert ended in ("findings", "budget")
    assert all(embeds(SINGLE, finding.case.plan) for finding in rounds.pipeline.findings)


def test_a_stream_or_not_is_the_same_bug(tmp_path: Path) -> None:
    """After two kills a stream fails first, and after one kill it never does.

    The case has one kill, and the signature that one kill shows.
    """
    in_stream = Bug(PAIR, "error event 503", outcome=Outcome.ERROR, after_s=7.0)
    plain = Bug(SINGLE, "HTTP 503", outcome=Outcome.ERROR, after_s=8.0)
    runner = SimRunner([in_stream, plain])
    assert runner.run(PAIR, "first").verdict.violations[0].signature.what == "error event 503"
    rounds = Rounds(
        FindingPipeline(
            runner, Corpus(tmp_path / "cases"), RunLog(), results_dir=tmp_path / "results"
        )
    )
    rounds.begin(0)
    with pytest.raises(StopDrawing):
        rounds(PAIR)
    (case,) = Corpus(tmp_path / "cases")
    assert case.plan == SINGLE
    assert str(case.signature) == "recovery / HTTP 503 / path left"
    assert not rounds.pipeline.findings[0].others


def test_a_case_is_called_as_its_minimal_plan_shows_it() -> None:
    """A shrink adopts the signature that the minimal plan shows. It keeps its own if the plan shows none of the family."""
    chase = Sightings(Signature("error_window", "error event 503", "path left"))
    for plan, what in ((SINGLE, "HTTP 503"), (PAIR, "HTTP 500")):
        seen = Violation(Signature("error_window", what, "path left"), 3.0, "")
        chase.note_signatures(Made(plan=plan).history(), [seen])
    chase.adopt_signature(PAIR)
    assert chase.signature.what == "error event 503"
    chase.adopt_signature(SINGLE)
    assert chase.signature.what == "HTTP 503"


PLAIN = plan_of("kill frontend 0")
# A bug that a pair of deaths shows, and also a third death alone.
EITHER = [Bug(PAIR, "wrong tokens"), Bug(PLAIN, "wrong tokens")]


def judged(runner: SimRunner, folder: Path) -> tuple[Rounds, Case]:
    """Hand the pair over as a drawn plan, with the plainest plans to hold it against."""
    rounds = Rounds(
        FindingPipeline(runner, Corpus(folder / "cases"), RunLog(), results_dir=folder / "results")
    )
    rounds.pipeline.plainest = plainest(runner.spec)
    rounds.begin(0)
    with pytest.raises(StopDrawing):
        rounds(PAIR)
    (finding,) = rounds.pipeline.findings
    return rounds, finding.case


def test_a_plainer_plan_that_fails_in_the_same_way_is_the_case(tmp_path: Path) -> None:
    """A plainer plan that breaks the same promise becomes the case, with its own evidence, although the drawn plan does not contain it."""
    rounds, case = judged(SimRunner(EITHER), tmp_path)
    assert (case.plan, case.status) == (PLAIN, "open")
    assert case.observed[0].broke == case.observed[0].runs >= CONFIRMED
    assert case.cost.live_runs + 1 == rounds.log.live.total()
    text = finding_text(rounds.pipeline.findings[0])
    assert "a plainer one that shows the same" in " ".join(text.split())


@pytest.mark.parametrize(("seed", "slots"), [(0, 1), (1, 1), (1, 2), (2, 3)])
def test_a_search_ends_with_the_plainer_plan(tmp_path: Path, seed: int, slots: int) -> None:
    """A search ends with the plainer plan, although Hypothesis's failing plan does not contain it."""
    rounds, ended = searched(SimRunner(EITHER, slots=slots), tmp_path, seed=seed)
    assert ended == "findings"
    assert [len(finding.case.plan.steps) for finding in rounds.pipeline.findings] == [1]


def test_a_plain_plan_that_fails_far_less_often_is_another_matter(tmp_path: Path) -> None:
    """A plainer plan that fails far less often is not the case: one run may break it, but its confirming runs do not."""
    shown = 0
    for seed in range(12):
        runner = SimRunner([EITHER[0], replace(EITHER[1], rate=0.25)], seed=seed)
        _, case = judged(runner, tmp_path / str(seed))
        assert case.plan == PAIR
        assert case.observed[0].broke == case.observed[0].runs >= CONFIRMED
        shown += runner.runs.count(PLAIN) > 1
    assert shown


def test_a_known_violation_of_a_plain_plan_is_not_new(tmp_path: Path) -> None:
    """If the plainer plan is a known case already, the pair becomes another case."""
    _, case = judged(SimRunner(EITHER), tmp_path)
    corpus = Corpus(tmp_path / "cases")
    corpus.save(replace(case, status="known", why="planted"))
    _, second = judged(SimRunner(EITHER), tmp_path)
    assert second.plan == PAIR


def test_the_plainest_plans_are_those_that_may_be_drawn() -> None:
    """The plainest plans are a kill of each role, if kills may be drawn, and the largest bursts."""
    plain = [plan.one_line() for plan in plainest(spec_of())]
    assert plain == [
        "kill frontend 0",
        "kill prefill 0",
        "kill decode 0",
        "burst 40 over 0.00 s",
        "burst 40 over 0.00 s, 100% leave",
    ]
    fewer = plainest(spec_of(faults=["stall"]))
    assert [plan.one_line() for plan in fewer] == plain[3:]


def test_the_same_seed_draws_the_same_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same seed draws the same plans up to the first finding, also where CI=true would derandomize Hypothesis."""
    journals = []
    for number, ci in enumerate(("", "true")):
        monkeypatch.setenv("CI", ci)
        path = tmp_path / f"{number}.jsonl"
        searched(
            SimRunner([Bug(PAIR, "wrong tokens")]), tmp_path / str(number), seed=7, journal=path
        )
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        journals.append([row["plan"] for row in rows if "drawn" in row])
        ends_s = [row["at_s"] for row in rows if "run" in row]
        assert ends_s == sorted(ends_s)
        assert 0 <= ends_s[-1] < 60
    assert journals[0] == journals[1]
    assert len(journals[0]) > 1


def test_different_seeds_draw_different_plans(tmp_path: Path) -> None:
    """Two seeds draw different plans."""
    drawn = [
        searched(SimRunner([], runs_max=20), tmp_path / str(seed), seed=seed)[0].log.plans
        for seed in (1, 2)
    ]
    assert drawn[0] != drawn[1]


def test_a_correct_graph_has_no_finding(tmp_path: Path) -> None:
    """A search of a correct graph makes 200 runs without a false alarm. A plan that only waits, or that was run before, is not run."""
    runner = SimRunner([], runs_max=200)
    rounds, ended = searched(runner, tmp_path)
    assert ended == "budget"
    assert rounds.log.live == {"kept": 200}
    assert not rounds.pipeline.findings
    assert len(runner.runs) == len(set(runner.runs))
    assert all(plan.disturbs for plan in runner.runs)
    assert rounds.log.drawn["only waits"] > 0


def test_with_a_case_known_a_second_bug_behind_it_is_found(tmp_path: Path) -> None:
    """A plan that contains a known case is still run, and a second bug that it shows is found."""
    first = Bug(SINGLE, "wrong tokens")
    searched(SimRunner([first]), tmp_path, seed=3)
    second = Bug(plan_of("kill decode 0", "respawn decode 0"), "tokens lost")
    rounds, _ = searched(SimRunner([first, second]), tmp_path, seed=4, findings_max=1)
    (finding,) = rounds.pipeline.findings
    assert str(finding.case.signature) == "answers / tokens lost"
    assert finding.case.plan.steps == second.needs.steps
    assert rounds.log.explained, "the known case was met on the way, and counted"


def test_a_known_case_is_not_a_finding_again(tmp_path: Path) -> None:
    """A search that meets only a known case goes on until its budget is spent, without a finding."""
    bug = Bug(SINGLE, "wrong tokens")
    searched(SimRunner([bug]), tmp_path, seed=3)
    rounds, ended = searched(SimRunner([bug], runs_max=100), tmp_path, seed=4)
    assert ended == "budget"
    assert not rounds.pipeline.findings
    assert sum(rounds.log.explained.values()) >= 10


def test_a_case_that_counts_as_fixed_is_news_when_it_is_back(tmp_path: Path) -> None:
    """A fixed case does not excuse violations, so its bug is a finding when it comes back."""
    bug = Bug(SINGLE, "wrong tokens")
    searched(SimRunner([bug]), tmp_path, seed=3)
    corpus = Corpus(tmp_path / "cases")
    (case,) = corpus
    corpus.save(_with_status(case, "fixed"))
    rounds, _ = searched(SimRunner([bug]), tmp_path, seed=4)
    assert [finding.case.id for finding in rounds.pipeline.findings] == [case.id]


def test_a_continued_shrink_compares_with_the_plainest_plans(tmp_path: Path) -> None:
    """An unshrunk case with several steps is held against the plainest plans, too."""
    _, pair = judged(SimRunner(EITHER[:1]), tmp_path)
    corpus = Corpus(tmp_path / "cases")
    left = replace(pair, status="unshrunk")
    corpus.save(left)
    rounds = Rounds(
        FindingPipeline(SimRunner(EITHER), corpus, RunLog(), results_dir=tmp_path / "results")
    )
    search(rounds, 1, findings_max=1, unshrunk=[left], config=QUICK)
    assert rounds.pipeline.findings[0].case.plan == PLAIN
    assert pair.id not in {case.id for case in Corpus(tmp_path / "cases")}


def test_a_break_in_the_last_wait_is_explained_by_its_case() -> None:
    """A case explains a violation within its reach of the last action, also if that is followed by a long wait."""
    plan = plan_of("kill prefill 0", "wait 3.60 s")
    made = (
        Made(plan=plan).step("kill prefill 0", 2.01, begun_s=2.0).step("wait 3.60 s", 5.6, number=1)
    )
    history = made.history()
    seen = Violation(Signature("views_agree", "listed"), 4.5, "listed")
    outcome = RunResult(plan, Verdict("broken", (seen,)), history, 6.0)
    chase = Sightings(seen.signature)
    chase.note_signatures(history, [seen])
    shrunk = Shrunk(plan, 1, 1, 0, 0, (), (), None, 1, complete=False, confirmed=True, journal=())
    case = case_of(made.spec, Host(), chase, shrunk, [outcome], ShrinkCost())
    assert case.reach_s == round(2.5 * 1.25 + 0.5, 1)
    assert case.explains(seen, history)
    assert not case.explains(replace(seen, at_s=1.9), history)
    assert not case.explains(replace(seen, at_s=2.1 + case.reach_s), history)
    assert Sightings(seen.signature).reach_s(plan, []) == 0.5


def test_another_violation_of_a_known_plan_is_another_case(tmp_path: Path) -> None:
    """Another violation of a known plan becomes another case, and the known case stays as it is."""
    searched(SimRunner([Bug(SINGLE, "wrong tokens")]), tmp_path)
    corpus = Corpus(tmp_path / "cases")
    (known,) = corpus
    known = replace(known, status="known", why="planted")
    corpus.save(known)
    both = [Bug(SINGLE, "wrong tokens"), Bug(SINGLE, "tokens lost")]
    rounds, _ = searched(SimRunner(both), tmp_path, seed=2)
    assert str(rounds.pipeline.findings[0].case.signature) == "answers / tokens lost"
    assert {case.plan for case in Corpus(tmp_path / "cases")} == {SINGLE}
    assert known in Corpus(tmp_path / "cases")
    assert len(list(Corpus(tmp_path / "cases"))) == 2


def test_shrinking_to_anything_is_asked_for(tmp_path: Path) -> None:
    """With `shrink_any`, a shrink may end with a smaller plan that breaks another promise. By default, it may not."""
    both = [Bug(SINGLE, "tokens lost", rate=1.0), Bug(PAIR, "wrong tokens")]
    plan = plan_of("kill decode 0", "kill prefill 0", "kill frontend 0")
    for shrink_any, steps in ((False, 2), (True, 1)):
        runner = SimRunner(both)
        folder = tmp_path / str(shrink_any)
        corpus, journal = Corpus(folder / "cases"), RunLog()
        rounds = Rounds(
            FindingPipeline(runner, corpus, journal, results_dir=folder, shrink_any=shrink_any)
        )
        outcome = runner.run(plan, "search")
        wrong = next(v for v in outcome.verdict.violations if v.signature.what == "wrong tokens")
        rounds.pipeline.find(plan, outcome, wrong)
        finding = rounds.pipeline.findings[-1]
        assert len(finding.case.plan.steps) == steps
    assert str(finding.case.signature) == "answers / tokens lost"


def _with_status(case: Case, status: Status) -> Case:
    return replace(case, status=status)


def test_an_unconfirmed_finding_gets_no_whole_run(tmp_path: Path) -> None:
    """Its page shows the run in which it was first seen."""
    bug = Bug(SINGLE, "HTTP 500", outcome=Outcome.ERROR, after_s=8.0)
    first = SimRunner([bug]).run(SINGLE, "search")
    runner = SimRunner([])
    pipeline = FindingPipeline(
        runner, Corpus(tmp_path / "cases"), RunLog(), results_dir=tmp_path / "results"
    )
    finding = pipeline.find(SINGLE, first, first.verdict.violations[0])
    assert finding is not None
    assert finding.case.status == "unconfirmed"
    assert {why for why, _ in runner.asked} == {"shrink"}


def test_runs_in_flight_at_the_end_of_a_budget_are_read(tmp_path: Path) -> None:
    """With several slots, the budget may end while runs go on. What each of them shows is reported, though no run confirms it."""
    plans = plans_of_sweep(spec_of(), 1).first[:10]
    bugs = [
        Bug(plans[7], "wrong tokens"),
        Bug(plans[8], "tokens lost"),
        Bug(plans[9], "HTTP 500", outcome=Outcome.ERROR, after_s=8.0),
    ]
    rounds, ended = searched(SimRunner(bugs, slots=2, runs_max=10), tmp_path, findings_max=9)
    assert ended == "budget"
    cases = [one.case for one in rounds.pipeline.findings]
    assert [(case.plan, case.observed[-1].runs) for case in cases] == [
        (plan, 0) for plan in plans[7:]
    ]
    assert {case.status for case in cases} <= {"unconfirmed", "unshrunk"}


@pytest.mark.parametrize("slots", [2, 4])
def test_slots_draw_and_find_the_same(tmp_path: Path, slots: int) -> None:
    """With several slots, a search draws the same plans and finds the same case as with one."""
    one, _ = searched(SimRunner([Bug(PAIR, "wrong tokens")]), tmp_path / "one", seed=2)
    more, ended = searched(
        SimRunner([Bug(PAIR, "wrong tokens")], slots=slots), tmp_path / "more", seed=2
    )
    assert ended == "findings"
    assert [f.case.plan for f in more.pipeline.findings] == [
        f.case.plan for f in one.pipeline.findings
    ]
    assert more.log.plans[: len(one.log.plans)] == one.log.plans
    assert more.pipeline.findings[0].case.observed[0].broke == 10

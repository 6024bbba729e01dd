"""More runs for findings that count already.

A shrink confirms a minimal plan by as few runs as the decision needs. A reader wants to know its failure rate. So, while a search goes on,
each finding gets further fresh runs, one now and then, up to `RUNS_MAX` in all. They change the counts of its case, and nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from graphquake.machines.cases.case import Observed
from graphquake.machines.findings.excuses import ShowsWanted, excuses_of
from graphquake.machines.findings.finding import Finding
from graphquake.machines.findings.pipeline import FindingPipeline

# A finding with this many fresh runs gets no more.
RUNS_MAX: Final = 10
WHY: Final = "more runs"


def one_more_run(pipeline: FindingPipeline) -> bool:
    """Run the minimal plan of the finding with the fewest fresh runs once more, and save the new counts in its case.

    Returns:
        False if every finding has enough runs.

    Raises:
        BudgetSpent: if no run fits into the budget any more.
    """
    lacking = [
        one for one in pipeline.findings if one.case.status == "open" and _runs(one) < RUNS_MAX
    ]
    if not lacking:
        return False
    finding = min(lacking, key=_runs)
    case = finding.case
    wanted = ShowsWanted(excuses_of(pipeline.corpus, pipeline.spec, {case.id}), case.signature)
    with pipeline.reopened(case):
        pending = pipeline.start(case.plan, WHY, "fewest runs", enough=wanted)
        result = pipeline.take(pending, WHY)
        unexplained = pipeline.excuses.unexplained(result)
    broke = any(violation.signature == case.signature for violation in unexplained)
    last = case.observed[-1]
    if result.verdict.kind == "invalid":
        counted = replace(last, invalid=last.invalid + 1)
    else:
        counted = replace(last, broke=last.broke + broke, runs=last.runs + 1)
    pipeline.runner.discard(result)
    _put(pipeline, finding, (*case.observed[:-1], counted))
    return True


def _runs(finding: Finding) -> int:
    """The number of fresh runs of a finding in this search. An invalid run counts, so that noise can't take all of the time."""
    last = finding.case.observed[-1]
    return last.runs + last.invalid


def _put(pipeline: FindingPipeline, finding: Finding, observed: tuple[Observed, ...]) -> None:
    """Save the new counts. A case that a user has marked keeps its mark. A case that a user has removed stays removed."""
    pipeline.corpus.refresh()
    case = replace(finding.case, observed=observed)
    there = next((one for one in pipeline.corpus if one.id == case.id), None)
    if there is not None:
        pipeline.corpus.save(replace(there, observed=observed))
    place = pipeline.findings.index(finding)
    pipeline.findings[place] = replace(finding, case=case)

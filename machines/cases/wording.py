"""The sentences of a case: its headline, the observation, and its counts in words."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator

from graphquake.harness.history.history import History
from graphquake.harness.promises.judgement import judge
from graphquake.harness.reports.text import failed_of, failures_text
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.case import Case, Difference
from graphquake.machines.shrinking.result import Needed, Threshold
from graphquake.machines.shrinking.stats import wilson

TITLE_MAX = 84


def title_of(promise: str, plan: Plan, history: History) -> str:
    """The headline of a case: the promise, the plan, and the number of requests that failed."""
    steps = "; ".join(str(step) for step in plan.steps) or "load alone"
    sent, failed = failed_of(history)
    came = f": {len(failed)} of {len(sent)} requests failed" if failed else ""
    return textwrap.shorten(f"{promise} broken by {steps}{came}", TITLE_MAX, placeholder=" …")


def seen_text(promise: str, history: History) -> str:
    """The observation in a sentence: counts of requests if the promise is about requests, else the first violation."""
    if promise in ("error_window", "recovery", "answers", "honest", "drain", "refusals_are_cheap"):
        return failures_text(history)
    seen = [v.seen for v in judge(history).violations if v.promise == promise]
    if not seen:
        return failures_text(history)
    return seen[0] + (f" (and {len(seen) - 1} more)" if len(seen) > 1 else "")


def reproduced_text(case: Case) -> str:
    """The number of runs of the plan that broke the promise, with a 95% confidence interval of the rate."""
    if not case.observed:
        return ""
    seen = case.observed[-1]
    if not seen.runs:
        return "not run again with a valid result: one run is all the evidence"
    low, high = wilson(seen.broke, seen.runs)
    interval = f"({low:.0%} to {high:.0%}, 95% Wilson)"
    # Only nodes of a cluster have their hardware in parentheses (see `Host.place`).
    where = f"; on {seen.host}" if "(" in seen.host else ""
    return f"{seen.broke} of {seen.runs} runs {interval}, all on fresh graphs{where}"


def needed_texts(case: Case) -> Iterator[str]:
    """A sentence for each step of the plan, about the runs without it. A repeated step is named with its number."""
    seen = Counter[str]()
    for number, one in enumerate(case.needed, start=1):
        name = str(one.step)
        seen[name] += 1
        again = f" (step {number})" if seen[name] > 1 else ""
        yield f'without "{name}"{again}: {needed_text(one)}'


def needed_text(one: Needed) -> str:
    """The results of the runs without one step, in words: `kept in 3 of 3 runs`."""
    runs = one.broke + one.kept
    if not runs:
        return "untested"
    return (
        f"broken in only {one.broke} of {runs} runs"
        if one.broke
        else f"kept in {one.kept} of {runs} runs"
    )


def number_text(one: Threshold) -> str:
    """The value from which on a number of the plan breaks the promise, and the highest lower value that kept it, in words."""
    unit = " s" if one.name.endswith("_s") else ""
    what = "the stay" if one.step is None else f'"{one.step}": {one.name.removesuffix("_s")}'
    runs = f"{one.kept} of {one.broke + one.kept} runs"
    return f"{what} {one.value:g}{unit} breaks it, {one.below:g}{unit} was kept in {runs}"


def difference_text(one: Difference) -> str:
    """A fact that separates broken from kept runs: `requests in flight at … ≥ 12: 4 of 4 broken, 0 of 7 kept`."""
    counts = f"{one.broke} of {one.broke} broken, 0 of {one.kept} kept"
    return f"{one.fact} {one.sign} {one.edge:.3g}: {counts}"


def control_text(case: Case) -> str:
    """The results of the runs without the plan's faults, in words. Empty if there were none."""
    if not case.plan.faults and case.observed and case.observed[-1].runs:
        return "the plan has no fault: load alone breaks it"
    if case.control is None:
        return ""
    runs = case.control.broke + case.control.kept
    if case.control.broke:
        return f"broken in {case.control.broke} of {runs} runs without the faults: load alone can break it"
    return f"kept in {runs} of {runs} runs without the faults"

"""The text of a finding, and the layout that it shares with the summary: labelled rows and tables.

A finding has at most 30 lines of 100 columns. Its last lines say what to do next, however long the rest is.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import StepDone
from graphquake.harness.history.history import History
from graphquake.harness.picture import NAME
from graphquake.harness.promises.builtin import promises_of
from graphquake.harness.promises.bursts import burst_text
from graphquake.harness.promises.signature import family_of
from graphquake.harness.reports.text import failed_of, since_s, telling_lines, timeline
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.case import Case
from graphquake.machines.cases.wording import (
    control_text,
    difference_text,
    needed_texts,
    number_text,
    reproduced_text,
)
from graphquake.machines.findings.finding import Finding

WIDTH: Final = 100
LABEL: Final = 12
LINES_MAX: Final = 30


def finding_text(finding: Finding) -> str:
    """The text of a finding: what broke, how to see it again, and the evidence."""
    case, history = finding.case, finding.shown.history
    word = "FINDING" if finding.counts else case.status.upper()
    lines = [_fit(f"{word} {case.id}  {case.title}")]
    lines += row("graph", _graph_line(case))
    lines += _plan_rows(case.plan, history)
    lines += row("promised", promise_text(history.spec, case.promise))
    lines += row("seen", case.seen)
    lines += [" " * (LABEL + 2) + row for row in timeline(history)]
    lines += _first_rows(history, case)
    lines += _log_rows(finding)
    lines += _evidence_rows(case)
    if finding.others:
        lines += row("also seen", "; ".join(map(str, finding.others[:3])))
    where = list(_where_rows(finding))
    return "\n".join(lines[: LINES_MAX - len(where)] + where)


def held_line(finding: Finding) -> str:
    """A line about a finding that counts already, and that is shrunk later."""
    seen = finding.case.observed[-1]
    counts = f"{seen.broke} of {seen.runs} runs"
    return f"found {finding.case.id}: {finding.case.plan.one_line()}: {finding.case.signature}, {counts} (shrunk later)"


def _where_rows(finding: Finding) -> Iterator[str]:
    """The last lines: where the case and the picture are, and what to do next."""
    if finding.path is not None:
        yield from row("case", f"{short(finding.path)}   status: {finding.case.status}")
    if finding.shown.folder is not None:
        yield from row("picture", short(finding.shown.folder / NAME))
    if finding.path is None:
        yield from row("again", _again(finding))
        return
    name = _name_of(finding)
    yield from row(
        "replay",
        f"graphquake replay {name}      not a bug today?  graphquake mark {name} known --why URL",
    )


def _again(finding: Finding) -> str:
    """The command that runs the plan of a finding without a case again."""
    folder, spec = finding.shown.folder, finding.shown.history.spec
    plan = short(folder / "plan.txt") if folder is not None else f'"{finding.case.plan.one_line()}"'
    return f"graphquake run {plan} --graph {short(spec.path)}      (no case was saved)"


def _name_of(finding: Finding) -> str:
    """The argument by which `replay` and `mark` find a case: its id if its file is in the default folder `regressions`, else its path."""
    path = finding.path
    assert path is not None
    return finding.case.id if short(path.parent) == "regressions" else short(path)


def _graph_line(case: Case) -> str:
    versions = case.observed[-1].versions if case.observed else {}
    return " · ".join(
        [
            case.graph["name"],
            case.graph.get("shape", ""),
            *(f"{name} {version}" for name, version in versions.items()),
            _load_text(case.load),
        ]
    )


def _load_text(load: Mapping[str, Any]) -> str:
    if clients := load.get("clients"):
        return f"{clients} clients, {load['requests_per_client']} requests each"
    return f"{load.get('rate_per_s', 0):g} requests/s"


def _plan_rows(plan: Plan, history: History) -> Iterator[str]:
    # The shown run may be one of a longer plan. Its proofs can't be matched to the steps of the minimal plan, so they are left out.
    own = history.plan.steps == plan.steps
    done = {step.number: step for step in history.of(StepDone)} if own else {}
    width = max((len(str(step)) for step in plan.steps), default=0)
    label = "plan"
    if not plan.steps:
        yield from row(label, "nothing: load alone is enough")
    for number, step in enumerate(plan.steps):
        seen = done.get(number)
        proof = f"landed: {seen.proof}" if seen and seen.fault and seen.landed else ""
        proof = proof or (seen.proof if seen else "")
        proof = burst_text(history, number) if seen and step.adds_load else proof
        text = f"{number + 1}  {step!s:{width}}  {proof}".rstrip()
        first, *rest = textwrap.wrap(
            text, WIDTH - LABEL - 2, break_on_hyphens=False, drop_whitespace=False,
            subsequent_indent=" " * (len(str(number + 1)) + width + 4),
        )  # fmt: skip
        yield f"  {label:{LABEL}}{first.rstrip()}"
        yield from (" " * (LABEL + 2) + line.rstrip() for line in rest)
        label = ""
    for line in plan.lines()[len(plan.steps) :]:
        yield f"  {label:{LABEL}}   {line}"


def promise_text(spec: GraphSpec, promise: str) -> str:
    """A promise in a sentence, with its bounds and where they come from."""
    p = spec.promises

    def bound(name: str, value: float, key: str) -> str:
        return f"({name} = {value:g} s, {p.source(f'{promise}.{key}')})"

    sentences = {
        "ends": f"while a path is up, no request goes without a byte for {p.stall_s:g} s "
        f"{bound('stall', p.stall_s, 'stall_s')} or reaches its deadline",
        "answers": f"every completed answer is exact (oracle: {p.oracle})",
        "honest": "no answer with status 200 is empty, cut short, or from another request",
        "drain": "no request in flight when a replica gets SIGTERM is lost within "
        + (f"{p.drain_s:g} s" if p.drain_s else "the stop_s of its role")
        + ", while other replicas serve",
        "error_window": _error_window(spec),
        "recovery": f"after heal: a success within {p.first_ok_s:g} s "
        f"{bound('R1', p.first_ok_s, 'first_ok_s')}, no failure after {p.all_ok_s:g} s "
        f"{bound('R2', p.all_ok_s, 'all_ok_s')}",
        "throughput": f"once the graph is steady: at most {1 - p.success:.0%} of requests are shed, at least {p.goodput:g} requests "
        f"end for each that begins, and the p90 latency is at most {p.slower:g} × the baseline's",
        "views_agree": f"no list and no readiness probe of the graph is wrong for {p.agree_s:g} s "
        f"{bound('within', p.agree_s, 'within_s')}"
        + (f"; a dead replica may stay listed for {spec.lease_s:g} s more" if spec.lease_s else ""),
        "blast_radius": "no process dies, except those at which a fault aims",
        "collapse": f"{p.well_s:g} s after the last burst, and after everything was healed, the median latency is at most "
        f"{p.well_slower:g} × the largest before the plan",
        "refusals_are_cheap": "requests that must be refused make no other request fail, and slow none "
        f"by more than {p.refusals_slower:g} ×",
        "no_growth": "no living replica holds more threads, open files or memory after each death of another one",
        "no_panic": "no replica logs a line that a broken program logs, except for one that a fault ends",
        "no_leak": f"{p.grace_s:g} s after the load ended, nothing is left: no orphan process, no LISTEN socket of a dead replica, "
        "no gauge above 0",
    }
    return sentences.get(promise) or _own_promise(spec, promise)


def _error_window(spec: GraphSpec) -> str:
    """The promise `error_window` in a sentence: which failures it excuses, and how many."""
    p = spec.promises
    of = spec.load
    source = p.source("error_window.window_s")
    spare = f"spare_failures = {p.spare_failures}, {p.source('error_window.spare_failures')}"
    if of.clients:
        most, spare = f"{of.clients} × (its window in s + 1)", ""
    elif p.window_s:
        most = f"{of.rate_per_s:g}/s × its window + {p.spare_failures}"
    else:
        most = str(p.spare_failures)
    in_flight = {
        "like others": "",
        "must survive": "; none fails that was in flight when a fault of another role than the entry began",
        "may fail": "; those in flight when it began are not counted",
    }[p.in_flight]
    bounds = "; ".join([f"W = {p.window_s:g} s, {source}", *([spare] if spare else [])])
    return (
        f"while a path is up, no request fails later than {p.window_s:g} s after a fault, and at most {most} fail until then "
        f"({bounds}){in_flight}"
    )


def _own_promise(spec: GraphSpec, name: str) -> str:
    """The first line of the docstring of a user's own promise."""
    try:
        about = promises_of(spec)[name].__doc__
    except (InputError, KeyError):  # A run may be read where the user's code is not.
        about = None
    return (
        about.strip().partition("\n")[0] if about else "a promise of your own, without a docstring"
    )


def _first_rows(history: History, case: Case) -> list[str]:
    """The first request that failed in the way that the signature names."""
    _, failed = failed_of(history)
    family = family_of(case.signature.what)
    first = next((r for r in failed if family_of(r.detail) == family), None)
    if first is None:
        return []
    return row(
        "example",
        f"request {first.number}, sent {first.sent_s - since_s(history):+.2f} s, {first.detail} "
        f"after {first.latency_s * 1e3:.0f} ms" + (f": {first.message}" if first.message else ""),
        lines=2,
    )


def _log_rows(finding: Finding) -> Iterator[str]:
    if finding.shown.folder is None:
        return
    label = "logs"
    for line in telling_lines(finding.shown.history, finding.shown.folder):
        at = f"{line.at_s:+.2f}" if line.at_s is not None else "no time"
        yield _fit(f"  {label:{LABEL}}{line.replica:12} {at:>7}  {line.text}")
        label = ""


def _evidence_rows(case: Case) -> Iterator[str]:
    if text := reproduced_text(case):
        yield from row("reproduced", text)
    yield from _rows("needed", needed_texts(case))
    yield from _rows("numbers", map(number_text, case.numbers))
    yield from _rows("differs", map(difference_text, case.differs))
    if text := control_text(case):
        yield from row("control", text)
    cost = case.cost
    steps, runs = counted(cost.steps, "step"), counted(cost.live_runs, "live run")
    plainer = " (not a part of the drawn plan, but a plainer one that shows the same)"
    yield from row(
        "cost",
        f"shrunk from {steps} in {runs}, {cost.live_s:.0f} s{plainer if cost.plainer else ''}",
    )


def _rows(label: str, texts: Iterable[str]) -> Iterator[str]:
    """A row for each text. The first row has the label."""
    for number, text in enumerate(texts):
        yield from row("" if number else label, text)


def counted(count: float, what: str) -> str:
    """A count with its noun: `1 step`, `2 steps`."""
    return f"{count:g} {what}{'s' * (count != 1)}"


def row(label: str, text: str, lines: int = 3) -> list[str]:
    """The lines of a labelled row, wrapped to the width.

    Args:
        label: the label, at most `LABEL` characters.
        text: the text.
        lines: the highest number of lines. The rest is cut.
    """
    indent = " " * (LABEL + 2)
    wrapped = textwrap.wrap(text, WIDTH - len(indent), break_on_hyphens=False) or [""]
    if len(wrapped) > lines:
        wrapped = wrapped[:lines]
        wrapped[-1] = wrapped[-1][: WIDTH - len(indent) - 2] + " …"
    return [f"  {label:{LABEL}}{wrapped[0]}", *(indent + rest for rest in wrapped[1:])]


def _fit(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def short(path: Path) -> str:
    """The path, relative to the working folder if it lies inside."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def table(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """The lines of a table. The keys of the first row are its head, and each column is as wide as its widest text."""
    rows = list(rows)
    if not rows:
        return []
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    head = "  ".join(f"{key:{width}}" for key, width in widths.items()).rstrip()
    body = ["  ".join(f"{row[key]:{w}}" for key, w in widths.items()).rstrip() for row in rows]
    return [head, *body]

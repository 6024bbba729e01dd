"""`graphquake try`: start a graph without faults, wait for a right answer, and describe a search on it.

It prints the replicas, the versions, and each bound with its source. It prints the steps that can be drawn, and the reasons for those that
can't. It also prints the cost of a run, and the number of runs that a budget buys.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from graphquake.harness.history.events import Traffic
from graphquake.harness.history.history import History
from graphquake.harness.history.request import Outcome
from graphquake.harness.promises.idle import is_idle
from graphquake.harness.promises.verdict import VerdictKind
from graphquake.harness.run.live import describe_host, run_live
from graphquake.harness.run.noise.undisturbed import undisturbed
from graphquake.harness.spec.feasible import drawn_at, left_out_by_reason
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Kill, Plan
from graphquake.harness.spec.steps.own.own import form_of
from graphquake.harness.spec.steps.waits.wait import PLAN_WAITS_MAX_S
from graphquake.machines.frontends.model_names import ModelNames
from graphquake.machines.reports.finding_text import promise_text

BUDGET_S: Final = 600.0
# Seconds that a plan adds to a run without steps, for its waits and outages: half of the longest waits that are drawn.
PLAN_S: Final = PLAN_WAITS_MAX_S / 2


async def trial(spec: GraphSpec, folder: Path) -> tuple[str, VerdictKind]:
    """Run the empty plan on a fresh graph, and return a description of the result and the verdict's kind.

    Args:
        spec: the graph.
        folder: the folder of the run. It is removed afterwards.

    Raises:
        GraphError: if the graph does not become ready, or gives no right answer.
    """
    host = await describe_host(spec)
    names = ModelNames()
    run = await undisturbed(
        lambda: run_live(spec, Plan(()), folder, host=host, opener=names.opened)
    )
    lines = [
        f"{spec.name} · {spec.shape}",
        *_row("machine", ", ".join(host.facts())),
    ]
    right = sum(request.outcome == Outcome.OK for request in run.history.requests)
    lines += _row("started", f"first right answer after {run.start_s:.2f} s")
    lines += _row(
        "load",
        f"{spec.load} of {spec.load.prompt_tokens} + {spec.load.max_tokens} tokens, "
        f"{spec.load.stream:.0%} streamed; {right} of {len(run.history.requests)} right",
    )
    for text in names.warnings(spec):
        lines += _row("warning", text)
    for number, text in enumerate(_traffic(run.history)):
        lines += _row("traffic" if number == 0 else "", text)
    lines += _row("verdict", run.verdict.text)
    for cause in run.verdict.causes:
        lines += _row("", cause)
    for violation in run.verdict.violations[:5]:
        lines += _row("", f"{violation.signature}: {violation.seen}")
    for number, name in enumerate(spec.promises.names):
        lines += _row("promises" if number == 0 else "", f"{name}: {promise_text(spec, name)}")
    for number, text in enumerate(steps_texts(spec)):
        lines += _row("steps" if number == 0 else "", text)
    cost_s = run.live_s + PLAN_S
    lines += _row(
        "cost",
        f"about {cost_s:.0f} s a run: 10 minutes buy about {BUDGET_S / cost_s:.0f} runs; "
        f"a finding takes 15 to 30 of them to shrink and confirm",
    )
    shutil.rmtree(folder, ignore_errors=True)
    return "\n".join(lines), run.verdict.kind


def _traffic(history: History) -> Iterator[str]:
    """Yield the shares of the replicas, for each serving role with several. Yield a warning if one is idle, or if no share is known."""
    shares: dict[str, list[Traffic]] = {}
    for one in history.of(Traffic):
        if one.number < 0 and history.spec.role(one.replica.role).replicas > 1:
            shares.setdefault(one.replica.role, []).append(one)
    for role, of_role in shares.items():
        if any(one.means == "none" for one in of_role):
            yield (
                f"warning: neither TCP bytes nor CPU time show which {role} serves; "
                "a fault at an idle one would count as tried"
            )
            continue
        yield ", ".join(f"{one.replica} {one.amount / one.of_role:.0%}" for one in of_role) + (
            " of the received bytes" if of_role[0].means == "bytes" else " of the CPU time"
        )
        for one in filter(is_idle, of_role):
            yield (
                f"warning: {one.replica} is ready, but has served nothing in {one.at_s:.1f} s; "
                "a fault at it proves little"
            )


def steps_texts(spec: GraphSpec) -> Iterator[str]:
    """Yield a line for each group of steps that can be drawn, and for each that can't, with the reason."""
    by_faults: dict[tuple[str, ...], list[str]] = {}
    for role in spec.roles:
        by_faults.setdefault(drawn_at(spec, role.name), []).append(role.name)
    for verbs, roles in by_faults.items():
        if verbs:
            yield f"{', '.join(verbs)}, respawn: {', '.join(roles)}"
        else:
            yield f"no fault at {', '.join(roles)}: its list faults is empty"
    killed = [role for role in spec.roles if Kill.verb in spec.faults_at(role.name)]
    for role in killed:
        for child, process in role.children.items():
            yield f"kill {role.name} N {child}: child processes named {process}"
    childless = [role.name for role in killed if not role.children]
    if childless:
        yield f"no kill of a child of {', '.join(childless)}: the file names no children"
    for own in spec.own_steps.values():
        how = own.signal or own.do
        kind = "a fault" if own.fault else "not a fault"
        listed = spec.faults_at(own.role) if own.role else spec.faults
        drawn = (
            ""
            if not own.fault or own.name in listed
            else "; not drawn: the list faults leaves it out"
        )
        yield f"{form_of(own)}: {how} ({kind}){drawn}"
    events = ["wait until N in flight"]
    events += ["wait until a first token"] if spec.load.stream else []
    events += ["wait until ROLE INDEX starts"] if spec.restart == "always" else []
    yield f"burst, wait, wait until ready; before a fault also: {', '.join(events)}"
    yield from (f"left out: {text}" for text in left_out_by_reason(spec))
    yield from _not_drawn(spec)


def _not_drawn(spec: GraphSpec) -> Iterator[str]:
    """Yield a line for each part of plans that is not drawn because a key of the file is missing."""
    if not spec.load.too_long_tokens:
        yield "no prompt that must be refused: the file gives no load.too_long_tokens"
    if not spec.load.malformed:
        yield "no malformed requests: the file does not say that they are refused (load.malformed)"
    if not spec.lease_s:
        yield "no long stay after the plan: the file gives no lease_s"


def _row(label: str, text: str) -> list[str]:
    return [f"  {label:10}{text}"]

"""A script of 40 lines that an engineer would write in place of a search: each single fault once, then pairs of kills.

A plan that broke a promise is run again, up to three runs in all. It counts if each of them broke the same promise. Nothing is shrunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Final

from graphquake.harness.promises.signature import Signature
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Burst, Kill, Plan, Stall, Terminate
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.runners.live_runner import LiveRunner
from graphquake.machines.runners.run_log import RunLog

RUNS: Final = 3
STALL_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class Broken:
    """A plan that broke a promise in each of `RUNS` runs, with the signatures that all of them showed."""

    plan: Plan
    signatures: list[Signature]


def plans(spec: GraphSpec) -> Iterator[Plan]:
    """Yield the plans of the script."""
    for role in spec.roles:
        yield Plan((Kill(role.name, 0),))
        yield Plan((Terminate(role.name, 0),))
        yield Plan((Stall(role.name, 0, STALL_S),))
        if spec.lease_s:
            yield Plan((Stall(role.name, 0, spec.lease_s + 1.0),))
    yield Plan((Burst(60),))
    yield Plan((Burst(60, 0.0, 1.0),))
    for one, two in permutations(spec.replicas(), 2):
        yield Plan((Kill(one.role, one.index), Kill(two.role, two.index)))


def run_script(runner: LiveRunner, log: RunLog) -> Iterator[Broken]:
    """Run the plans until the budget is spent, and yield each one that broke in every run."""
    for plan in plans(runner.spec):
        shown: set[Signature] | None = None
        for _ in range(RUNS):
            try:
                result = runner.run(plan, "script")
            except BudgetSpent:
                return
            own = {one.signature for one in result.verdict.violations}
            shown = own if shown is None else shown & own
            log.run(plan, "script", result.verdict, result.live_s, "; ".join(map(str, own)))
            runner.discard(result)
            if not shown:
                break
        else:
            yield Broken(plan, sorted(shown or (), key=str))

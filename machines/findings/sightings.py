"""One signature that is chased through a shrink, and what its case says of it in the end.

While a plan is shrunk, its runs show other things as well. What the minimal plan itself shows besides is the same bug in other words and
goes into its case; everything else is a second finding, written down and not chased.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from graphquake.harness.history.events import StepDone
from graphquake.harness.history.history import History
from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Violation
from graphquake.harness.spec.plan import Plan
from graphquake.machines.cases.case import (
    REACH_FACTOR,
    REACH_SLACK_S,
    Case,
    Difference,
    Status,
    acted_s,
)
from graphquake.machines.findings.explain import Facts, facts_of, separating
from graphquake.machines.runners.runner import RunResult
from graphquake.machines.shrinking.result import Shrunk


@dataclass(slots=True)
class Sightings:
    """One signature that is shrunk, and what else was seen on the way."""

    signature: Signature
    _runs: dict[Plan, list[tuple[bool, Facts]]] = field(default_factory=dict)
    _late_s: dict[Plan, dict[Signature, float]] = field(default_factory=dict)

    def wants(self, violation: Violation) -> bool:
        """Whether it is what is chased."""
        return violation.signature == self.signature

    def adopt_signature(self, minimal: Plan) -> None:
        """Adopt the signature that the minimal plan shows, if its wording differs from the first one."""
        shown = self._late_s.get(_key(minimal), {})
        self.signature = next((one for one in shown if one == self.signature), self.signature)

    def saw(self, history: History, violations: Iterable[Violation]) -> None:
        """A run showed these."""
        plan = _key(history.plan)
        late_s = _late_s(plan, history, violations)
        before = self._late_s.setdefault(plan, {})
        before |= {one: max(late, before.get(one, late)) for one, late in late_s.items()}

    def noted(self, history: History, *, broken: bool) -> None:
        """A run that proves something broke by what is chased, or did not."""
        plan = _key(history.plan)
        self._runs.setdefault(plan, []).append((broken, facts_of(history)))

    def reach_s(self, minimal: Plan, sightings: Iterable[RunResult]) -> float:
        """How long after the plan did the last of what it does its violations began, with a margin.

        Args:
            sightings: runs of other plans that show it, besides those of the minimal one.
        """
        own = {self.signature, *self.also(minimal)}
        late_s = [self._late_s.get(_key(minimal), {})]
        late_s += [_late_s(minimal, one.history, one.verdict.violations) for one in sightings]
        most_s = max((s for found in late_s for one, s in found.items() if one in own), default=0.0)
        return round(max(0.0, most_s) * REACH_FACTOR + REACH_SLACK_S, 1)

    def differs(self, minimal: Plan) -> tuple[Difference, ...]:
        """What separates the broken from the kept runs of the minimal plan."""
        runs = self._runs.get(_key(minimal), [])
        broken = [facts for was_broken, facts in runs if was_broken]
        return tuple(separating(broken, [facts for was_broken, facts in runs if not was_broken]))

    def also(self, minimal: Plan) -> set[Signature]:
        """What the minimal plan itself shows besides: the same bug in other words. A wrong answer never is."""
        return {one for one in self._late_s.get(_key(minimal), {}) if one.promise != "answers"}

    def others(self, case: Case) -> tuple[Signature, ...]:
        """Second findings: seen on the way, and not shown by the minimal plan."""
        seen = set[Signature]().union(*self._late_s.values())
        return tuple(sorted((one for one in seen if not case.names(one)), key=str))


def _key(plan: Plan) -> Plan:
    """The plan whatever its stay: runs that watched it for longer are runs of the same plan."""
    return replace(plan, stay_s=0.0)


def status_of(promise: str, shrunk: Shrunk) -> Status:
    """The status of a new case."""
    if not shrunk.confirmed and promise != "answers":
        # A wrong answer is a finding at once: the history is the evidence.
        return "unconfirmed"
    return "open" if shrunk.complete else "unshrunk"


def _late_s(
    plan: Plan, history: History, violations: Iterable[Violation]
) -> dict[Signature, float]:
    """For each signature, how long after a plan did the last of what it does it was last seen in a run; 0 if the run did less."""
    since_s = acted_s(plan, history)
    found: dict[Signature, float] = {}
    for one in violations:
        late_s = 0.0 if since_s is None else one.at_s - since_s
        found[one.signature] = max(late_s, found.get(one.signature, late_s))
    return found


def last_step(history: History, at_s: float) -> int:
    """The last step that had begun by then; -1 if none had."""
    return max((step.number for step in history.of(StepDone) if step.begun_s <= at_s), default=-1)

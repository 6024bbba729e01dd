"""Follows one signature through a shrink, and notes what else the runs show.

A shrink makes a plan smaller as long as its runs show one signature. The runs may show other signatures as well. If a run of the minimal
plan itself shows another signature, it counts as the same bug in other words, and the case names it. All other signatures may be other
bugs. The finding lists them, and the shrink does not follow them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

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

# The promises of which one broken run is enough: the history has the answer that proves it.
PROVED_BY_ONE: Final = ("answers", "honest")


@dataclass(slots=True)
class Sightings:
    """The signatures that the runs of one shrink showed.

    Attributes:
        signature: the signature that the shrink follows.
    """

    signature: Signature
    _runs: dict[Plan, list[tuple[bool, Facts]]] = field(default_factory=dict)
    _late_s: dict[Plan, dict[Signature, float]] = field(default_factory=dict)
    _hosts: dict[Plan, set[str]] = field(default_factory=dict)

    def follows(self, violation: Violation) -> bool:
        """True if a violation has the signature that the shrink follows."""
        return violation.signature == self.signature

    def adopt_signature(self, minimal: Plan) -> None:
        """Adopt the signature that the minimal plan shows, if its wording differs from the first one."""
        shown = self._late_s.get(_key(minimal), {})
        self.signature = next((one for one in shown if one == self.signature), self.signature)

    def note_signatures(self, history: History, violations: Iterable[Violation]) -> None:
        """Note the signatures of the violations of a run, and the times from the plan's last act to the violations."""
        plan = _key(history.plan)
        late_s = _late_s(plan, history, violations)
        before = self._late_s.setdefault(plan, {})
        before |= {one: max(late, before.get(one, late)) for one, late in late_s.items()}

    def note_facts(self, history: History, *, broken: bool) -> None:
        """Note the facts of a valid run.

        Args:
            history: the run.
            broken: true if the run showed the signature that the shrink follows.
        """
        plan = _key(history.plan)
        self._runs.setdefault(plan, []).append((broken, facts_of(history)))
        self._hosts.setdefault(plan, set()).add(history.host.place)

    def reach_s(self, minimal: Plan, runs: Iterable[RunResult]) -> float:
        """The reach of a case: the longest time from the last act of its plan to the start of a violation, with a margin, in seconds.

        Args:
            minimal: the minimal plan.
            runs: runs of other plans that show the violation, in addition to all runs of the minimal plan.
        """
        own = {self.signature, *self.also(minimal)}
        late_s = [self._late_s.get(_key(minimal), {})]
        late_s += [_late_s(minimal, one.history, one.verdict.violations) for one in runs]
        most_s = max((s for found in late_s for one, s in found.items() if one in own), default=0.0)
        return round(max(0.0, most_s) * REACH_FACTOR + REACH_SLACK_S, 1)

    def differs(self, minimal: Plan) -> tuple[Difference, ...]:
        """The facts that separate the broken runs of the minimal plan from its kept ones."""
        runs = self._runs.get(_key(minimal), [])
        broken = [facts for was_broken, facts in runs if was_broken]
        return tuple(separating(broken, [facts for was_broken, facts in runs if not was_broken]))

    def hosts(self, minimal: Plan) -> str:
        """The nodes of a cluster on which the runs of the minimal plan were made, with their hardware. Empty if there is no cluster."""
        return ", ".join(sorted(self._hosts.get(_key(minimal), set()) - {""}))

    def also(self, minimal: Plan) -> set[Signature]:
        """The signatures that runs of the minimal plan showed. They count as the same bug in other words.

        A wrong answer is always a bug of its own, so signatures of the promises `answers` and `honest` are left out.
        """
        late = self._late_s.get(_key(minimal), {})
        return {one for one in late if one.promise not in PROVED_BY_ONE}

    def others(self, case: Case) -> tuple[Signature, ...]:
        """The signatures that runs of the shrink showed and the case does not name. They may be other bugs."""
        seen = set[Signature]().union(*self._late_s.values())
        return tuple(sorted((one for one in seen if not case.names(one)), key=str))


def _key(plan: Plan) -> Plan:
    """The plan without its stay: a run that stays longer is a run of the same plan."""
    return replace(plan, stay_s=0.0)


def status_of(promise: str, shrunk: Shrunk) -> Status:
    """The status of a new case: `unconfirmed`, `open` or `unshrunk`.

    It is `unconfirmed` if no fresh run of the minimal plan showed the violation again. A case of the promises `answers` and `honest` is
    never `unconfirmed`. Otherwise it is `open` if the shrink tried everything, and `unshrunk` if the shrink ended early.
    """
    if not shrunk.confirmed and promise not in PROVED_BY_ONE:
        # One wrong answer is enough: the history proves it.
        return "unconfirmed"
    return "open" if shrunk.complete else "unshrunk"


def _late_s(
    plan: Plan, history: History, violations: Iterable[Violation]
) -> dict[Signature, float]:
    """Signature -> seconds from the last act of a plan to the signature's last violation, or 0 if the plan does not embed in the run."""
    since_s = acted_s(plan, history)
    found: dict[Signature, float] = {}
    for one in violations:
        late_s = 0.0 if since_s is None else one.at_s - since_s
        found[one.signature] = max(late_s, found.get(one.signature, late_s))
    return found


def last_step(history: History, at_s: float) -> int:
    """The number of the last step that had begun by the time `at_s`, or -1 if no step had."""
    return max((step.number for step in history.of(StepDone) if step.begun_s <= at_s), default=-1)

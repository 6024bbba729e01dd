"""Explains why a plan breaks a promise in some of its runs: it finds facts that separate the broken runs from the kept ones.

A *fact* is a number about the moment at which a step began. Examples are the number of requests in flight, the time since a replica became
ready again, and the time between two steps. Facts are known for every run, however early it ended. A fact separates if all broken runs lie
on one side of a value and all kept runs on the other side. Among many facts, some separate a small number of runs by chance. So facts are
reported only if the probability that chance alone produced one of them is at most `CHANCE_MAX`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

from graphquake.harness.history.events import BecameReady, StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.request import Request
from graphquake.machines.cases.case import Difference

# The name of a fact -> its value. Yes is 1 and no is 0.
Facts: TypeAlias = Mapping[str, float]

SHOWN_MAX: Final = 3
# The highest allowed probability that some fact separates runs that do not really differ.
CHANCE_MAX: Final = 0.05


def facts_of(history: History) -> dict[str, float]:
    """The facts of a run, about the moment at which each of its steps began. Waits are left out."""
    found: dict[str, float] = {}
    steps = list(history.of(StepDone))
    ready = [event for event in history.of(BecameReady) if event.incarnation]
    for number, step in enumerate(steps):
        if step.waits:
            continue
        at_s, name = step.begun_s, f'"{step.step}" (step {step.number + 1})'
        there = [r for r in history.requests if _in_flight(r, at_s)]
        found[f"requests in flight at {name}"] = len(there)
        found[f"streams with a token at {name}"] = sum(r.first_s < at_s for r in there)
        if number:
            found[f"seconds from the step before to {name}"] = at_s - steps[number - 1].at_s
        for event in ready:
            if event.at_s < at_s:
                found[f"seconds since {event.replica} was ready again at {name}"] = (
                    at_s - event.at_s
                )
        for replica in {event.replica for event in ready}:
            back = any(e.replica == replica and e.at_s < at_s for e in ready)
            found[f"{replica} was back at {name}"] = float(back)
    return found


def _in_flight(request: Request, at_s: float) -> bool:
    return request.sent_s < at_s and (not request.outcome or request.ended_s >= at_s)


def separating(broken: Sequence[Facts], kept: Sequence[Facts]) -> list[Difference]:
    """The facts that separate broken runs from kept runs, at most `SHOWN_MAX` of them. Empty if chance may explain them.

    The fact with the widest gap between its values in broken runs and in kept runs comes first.

    Args:
        broken: the facts of each run that broke the promise.
        kept: the facts of each run that kept it.
    """
    if not broken or not kept:
        return []
    names = set.intersection(*(set(one) for one in (*broken, *kept)))
    varied = sorted(name for name in names if len({one[name] for one in (*broken, *kept)}) > 1)
    chance = 2 / math.comb(len(broken) + len(kept), len(broken)) * len(varied)
    if chance > CHANCE_MAX:
        return []
    found = []
    for name in varied:
        high, low = [one[name] for one in broken], [one[name] for one in kept]
        if min(high) > max(low) or max(high) < min(low):
            sign: Literal["≥", "≤"] = "≥" if min(high) > max(low) else "≤"
            edge = min(high) if sign == "≥" else max(high)
            gap = min(abs(b - k) for b in high for k in low) / (max([*high, *low]) or 1.0)
            one = Difference(name, sign, round(edge, 3), len(broken), len(kept))
            found.append((-gap, name, one))
    return [one for _, _, one in sorted(found, key=lambda one: one[:2])][:SHOWN_MAX]

"""What separates the broken from the kept runs of one and the same plan, where it does not break every time.

A run is told by *facts* about the moments at which its steps began: how many requests were in flight, how long ago somebody came back,
how far apart two steps were. They are known of every run, however early it ended. A fact separates if it has one kind of value in all
broken runs and another in all kept ones, and if that many runs would hardly do so by chance, with that many facts to choose from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

from graphquake.harness.history.events import BecameReady, StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.request import Request
from graphquake.machines.cases.case import Difference

# Name -> value: a number, or 1 and 0 for yes and no.
Facts: TypeAlias = Mapping[str, float]

SHOWN_MAX: Final = 3
# The chance that some fact or other separates runs that do not differ.
CHANCE_MAX: Final = 0.05


def facts_of(history: History) -> dict[str, float]:
    """What was so when each step of a run began."""
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
    """The facts that separate them, the clearest first: `requests in flight at … ≥ 12: 4 of 4 broken, 0 of 7 kept`."""
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

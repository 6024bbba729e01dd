"""Count the outcomes of the requests of a burst: the proof that its clients behaved as the burst asks.

A burst lands when its first request is sent, so its proof at that moment can't contain the behaviour of its clients. The requests show it
later. If each answer ended before the token, no client could leave there. The burst then differs from the plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from graphquake.harness.history.events import StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.request import Outcome, Request
from graphquake.harness.spec.steps.load.burst import Burst


def burst_text(history: History, number: int) -> str:
    """Return how many requests of a burst had each outcome, e.g. `40 requests: 20 left after token 8, 20 ok`.

    Args:
        history: the run.
        number: the place of the burst in the plan, from 0.
    """
    sent = _requests(history, number)
    ways = Counter(one.detail or str(one.outcome or "in flight") for one in sent)
    counts = ", ".join(
        f"{ways[way]} {way}" for way in sorted(ways, key=lambda way: (-ways[way], way))
    )
    return f"{len(sent)} requests: {counts}" if sent else "no request"


def missed_bursts(history: History) -> Iterator[tuple[StepDone, float, str]]:
    """Yield each burst of which no client left at its token, with the time of its last answer and the reason.

    A burst is not missed while a request of it is in flight, or if a request failed before its client could leave.
    """
    for done in history.of(StepDone):
        if not isinstance(done.step, Burst) or not done.step.leave_later or done.step.leave:
            continue
        leaving = [one for one in _requests(history, done.number) if one.manner == "leaves"]
        if leaving and all(one.outcome == Outcome.OK for one in leaving):
            why = f"each of its {len(leaving)} answers ended before token {done.step.at_token}"
            yield done, max(one.ended_s for one in leaving), why


def _requests(history: History, number: int) -> list[Request]:
    return [
        one for one in history.requests if (one.group.kind, one.group.number) == ("burst", number)
    ]

"""A request: when it was sent, what came, and how it ended."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

# What is kept of what one request said and was told.
EXCHANGE_MAX_BYTES: Final = 1 << 10

OK: Final = "ok"
SHED: Final = "shed"
REFUSED: Final = "refused"
ERROR: Final = "error"
TRUNCATED: Final = "truncated"
WRONG: Final = "wrong"
STALLED: Final = "stalled"
LEFT: Final = "left"
# The detail of an error that came within a stream; the HTTP status that the event names, if it names one, comes behind it.
ERROR_EVENT: Final = "error event"
# What a promise may have to excuse. A wrong answer is never excused; shed and left are no failures.
FAILED: Final = frozenset({REFUSED, ERROR, TRUNCATED, STALLED})


@dataclass(slots=True)
class Request:
    """One attempt of one client.

    Attributes:
        number: its place in the schedule; prompt and right answer follow from it and the load's seed.
        group: `steady`, or `client N` of a closed loop, or `burst N` with the number of the step.
        intended_s, sent_s, first_s, last_s, ended_s: on the run's clock. first_s is the first token's, NaN if there was
            none; last_s the last byte's, or sent_s.
        quiet_from_s, quiet_to_s: the longest stretch without a byte.
        outcome: one of the constants above.
        detail: what the outcome rests on, e.g. `HTTP 503`, `stream cut`, `error event 503`.
        message: what the server said, shortened.
        tokens: how many came.
        attempt: in a closed loop, how often the same was asked before.
    """

    number: int
    group: str
    stream: bool
    intended_s: float
    sent_s: float = float("nan")
    first_s: float = float("nan")
    last_s: float = float("nan")
    ended_s: float = float("nan")
    quiet_from_s: float = float("nan")
    quiet_to_s: float = float("nan")
    outcome: str = ""
    detail: str = ""
    message: str = ""
    tokens: int = 0
    attempt: int = 0

    @property
    def steady(self) -> bool:
        """Whether it is of the load that goes on all the while, and of no burst."""
        return not self.group.startswith("burst ")

    @property
    def failed(self) -> bool:
        """Whether this outcome has to be excused."""
        return self.outcome in FAILED

    @property
    def latency_s(self) -> float:
        """From sending to the last byte."""
        return self.ended_s - self.sent_s


@dataclass(slots=True)
class Exchange:
    """What a client and the graph said to each other in one request, for a reader: no promise looks at it.

    Attributes:
        entry: the URL that took the request, or refused it last.
        answer: what came, as it came; HTTP headers left out.
    """

    asked: bytes = b""
    entry: str = ""
    answer: bytearray = field(default_factory=bytearray)

    def line(self, request: Request) -> str:
        """One line of JSON, long texts without their middle."""
        return json.dumps(
            {
                "number": request.number,
                "group": request.group,
                "sent_s": round(request.sent_s, 6),
                "ended_s": round(request.ended_s, 6),
                "outcome": request.outcome,
                "detail": request.detail,
                "entry": self.entry,
                "asked": _shorten(self.asked),
                "answer": _shorten(self.answer),
            }
        )


def _shorten(said: bytes | bytearray) -> str:
    """The text; of a long one its begin and its end."""
    if len(said) > EXCHANGE_MAX_BYTES:
        half = EXCHANGE_MAX_BYTES // 2
        said = said[:half] + " … ".encode() + said[-half:]
    return said.decode("utf-8", "replace")

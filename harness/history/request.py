"""A request: when it was sent, what came, and how it ended."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, TypeAlias, get_args

GroupKind: TypeAlias = Literal["steady", "client", "burst", "probe"]

# What is kept of what one request said and was told.
EXCHANGE_MAX_BYTES: Final = 1 << 10

# The detail of an error that came within a stream; the HTTP status that the event names, if it names one, comes behind it.
ERROR_EVENT: Final = "error event"


class Outcome(StrEnum):
    """How a request ended.

    Attributes:
        OK: a right answer.
        SHED: the graph declined it at once, as overloaded.
        REFUSED: no entry accepted the connection.
        ERROR: an HTTP error, an error in the answer, or a lost connection.
        TRUNCATED: the answer ended early.
        WRONG: the answer differs from the right one.
        TIMED_OUT: no end before the client's deadline.
        LEFT: the client closed the connection itself, after the first token.
    """

    OK = "ok"
    SHED = "shed"
    REFUSED = "refused"
    ERROR = "error"
    TRUNCATED = "truncated"
    WRONG = "wrong"
    TIMED_OUT = "timed_out"
    LEFT = "left"

    @classmethod
    def parse(cls, text: str) -> Outcome | None:
        """Read the text form; empty is a request without an end. Runs from before schema 2 of cases say `stalled` for `timed_out`."""
        if not text:
            return None
        return cls.TIMED_OUT if text == "stalled" else cls(text)


# The outcomes that a promise may have to excuse. A wrong answer is never excused. SHED and LEFT do not count as failures.
FAILED: Final = frozenset({Outcome.REFUSED, Outcome.ERROR, Outcome.TRUNCATED, Outcome.TIMED_OUT})


@dataclass(frozen=True, slots=True)
class Group:
    """The clients that a request belongs to.

    Attributes:
        kind: `steady` (the open loop), `client` (one client of a closed loop), `burst`, or `probe` (outside every history).
        number: the number of the client, or of the burst's step in the plan; None for the others.
    """

    kind: GroupKind
    number: int | None = None

    def __str__(self) -> str:
        return self.kind if self.number is None else f"{self.kind} {self.number}"

    @classmethod
    def parse(cls, text: str) -> Group:
        """Read the text form, e.g. `burst 3`.

        Raises:
            ValueError: if it is not the text form of a group.
        """
        kind, _, number = text.partition(" ")
        for known in get_args(GroupKind):
            if kind == known:
                return cls(known, int(number) if number else None)
        raise ValueError(f'found "{text}", expected one of {", ".join(get_args(GroupKind))}')


STEADY: Final = Group("steady")
PROBE: Final = Group("probe")


@dataclass(slots=True)
class Request:
    """One attempt of one client.

    Attributes:
        number: its place in the schedule; prompt and right answer follow from it and the load's seed.
        group: the clients that it belongs to.
        intended_s, sent_s, first_s, last_s, ended_s: on the run's clock. first_s is the first token's, NaN if there was
            none; last_s the last byte's, or sent_s.
        quiet_from_s, quiet_to_s: the longest stretch without a byte.
        outcome: how it ended; None while it is in flight.
        detail: what the outcome rests on, e.g. `HTTP 503`, `stream cut`, `error event 503`.
        message: what the server said, shortened.
        tokens: how many came.
        attempt: in a closed loop, how often the same was asked before.
    """

    number: int
    group: Group
    stream: bool
    intended_s: float
    sent_s: float = float("nan")
    first_s: float = float("nan")
    last_s: float = float("nan")
    ended_s: float = float("nan")
    quiet_from_s: float = float("nan")
    quiet_to_s: float = float("nan")
    outcome: Outcome | None = None
    detail: str = ""
    message: str = ""
    tokens: int = 0
    attempt: int = 0

    @property
    def steady(self) -> bool:
        """Whether it belongs to the load that lasts for the whole run, not to a burst."""
        return self.group.kind != "burst"

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
                "group": str(request.group),
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

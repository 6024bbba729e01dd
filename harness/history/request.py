"""One request of a client: its times, its answer, and its outcome."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, TypeAlias, get_args

GroupKind: TypeAlias = Literal["steady", "client", "burst", "probe"]

# The limit for each side of an exchange that is written down.
EXCHANGE_MAX_BYTES: Final = 1 << 10

# The detail of an error that came within a stream. If the event names an HTTP status, the status follows it.
ERROR_EVENT: Final = "error event"


class Outcome(StrEnum):
    """The ends that a request may have.

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
        """Read the text form. The empty text is a request without an end. Old runs say `stalled` for `timed_out`."""
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
        number: the number of the client, or of the burst's step in the plan. None for the others.
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
        number: its place in the schedule. The prompt and the right answer follow from it and from the load's seed.
        group: the clients that it belongs to.
        stream: true if the answer is streamed.
        intended_s, sent_s, ended_s: the times at which it should have been sent, was sent, and ended, in seconds on the run's clock.
        first_s: the time of the first token, or NaN if there was none.
        last_s: the time of the last byte, or `sent_s` if there was none.
        quiet_from_s, quiet_to_s: the longest interval without a byte.
        outcome: how it ended. None while it is in flight.
        detail: the reason for the outcome, e.g. `HTTP 503`, `stream cut`, `error event 503`.
        message: the server's message, shortened.
        tokens: the number of tokens that came.
        attempt: in a closed loop, the number of earlier attempts of the same request.
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
        """True if it belongs to the load that lasts for the whole run, not to a burst."""
        return self.group.kind != "burst"

    @property
    def failed(self) -> bool:
        """True if a promise has to excuse this outcome."""
        return self.outcome in FAILED

    @property
    def latency_s(self) -> float:
        """The time from sending to the end, in seconds."""
        return self.ended_s - self.sent_s


@dataclass(slots=True)
class Exchange:
    """The bytes that a client and the graph sent to each other in one request. They are for a reader: no promise looks at them.

    Attributes:
        asked: the body of the request.
        entry: the URL that accepted the request, or refused it last.
        answer: the body of the answer.
    """

    asked: bytes = b""
    entry: str = ""
    answer: bytearray = field(default_factory=bytearray)

    def line(self, request: Request) -> str:
        """Return one line of JSON. Long texts lose their middle."""
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
    """Return the text. Of a long text, return the beginning and the end."""
    if len(said) > EXCHANGE_MAX_BYTES:
        half = EXCHANGE_MAX_BYTES // 2
        said = said[:half] + " … ".encode() + said[-half:]
    return said.decode("utf-8", "replace")

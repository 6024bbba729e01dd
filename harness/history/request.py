"""One request of a client: its times, its answer, and its outcome."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, TypeAlias, get_args

# The behaviour of a client: it waits for its answer, or it closes the connection, after a token or before the first one. Or its prompt is
# too long, or its request is malformed.
MannerKind: TypeAlias = Literal["stays", "leaves", "leaves at once", "asks too much", "malformed"]
GroupKind: TypeAlias = Literal["steady", "client", "burst", "probe"]

# The largest number of bytes of a request body or an answer body that an exchange keeps in the logs.
EXCHANGE_MAX_BYTES: Final = 1 << 10

# The value of `Request.detail` for an error that came within a stream. If the error names an HTTP status, the status is appended.
ERROR_EVENT: Final = "error event"


class Outcome(StrEnum):
    """The possible outcomes of a request.

    Attributes:
        OK: a right answer.
        SHED: the graph declined the request within a second, because of overload.
        REFUSED: no replica of the entry role accepted the connection.
        ERROR: an HTTP error, an error in the answer, or a lost connection.
        TRUNCATED: the answer ended before it was complete.
        WRONG: the answer is complete, but differs from the right answer.
        TIMED_OUT: the request did not end before the client's deadline.
        LEFT: the client closed the connection itself, after a token or before the first one, as its burst asks.
        REJECTED: the graph answered a prompt that is too long, or a malformed request, with an HTTP status 4xx, as it should.
    """

    OK = "ok"
    SHED = "shed"
    REFUSED = "refused"
    ERROR = "error"
    TRUNCATED = "truncated"
    WRONG = "wrong"
    TIMED_OUT = "timed_out"
    LEFT = "left"
    REJECTED = "rejected"

    @classmethod
    def parse(cls, text: str) -> Outcome | None:
        """Read the text form of an outcome. The empty text gives None: the request is in flight. Old runs say `stalled` for `timed_out`."""
        if not text:
            return None
        return cls.TIMED_OUT if text == "stalled" else cls(text)


# The outcomes that are failures, which a fault may excuse. A wrong answer is never excused. SHED, LEFT and REJECTED are
# not failures.
FAILED: Final = frozenset({Outcome.REFUSED, Outcome.ERROR, Outcome.TRUNCATED, Outcome.TIMED_OUT})

# The outcomes of requests that ended as their client asked. They tell nothing about the service that other requests get.
AS_ASKED: Final = frozenset({Outcome.LEFT, Outcome.REJECTED})


@dataclass(frozen=True, slots=True)
class Group:
    """The group of clients that sent a request.

    Attributes:
        kind: `steady` (the open loop), `client` (one client of a closed loop), `burst`, or `probe` (a request that no
            history contains).
        number: the number of the client, or the place of the burst in the plan, from 0. None for the other kinds.
    """

    kind: GroupKind
    number: int | None = None

    def __str__(self) -> str:
        return self.kind if self.number is None else f"{self.kind} {self.number}"

    @classmethod
    def parse(cls, text: str) -> Group:
        """Read the text form of a group, e.g. `burst 3`.

        Raises:
            ValueError: if the text does not name a group.
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
    """One attempt of one client to get an answer. All times are seconds on the run's clock.

    Attributes:
        number: the number of the request in its run. All attempts of one request have the same number. The prompt and the right answer
            follow from this number and from the load's seed.
        group: the group of clients that sent the request.
        stream: true if the client asked for a streamed answer.
        intended_s: the time at which the client should have sent the request.
        sent_s: the time at which the client sent the request.
        first_s: the time of the first token, or NaN if no token came.
        last_s: the time of the last byte, or `sent_s` if no byte came.
        ended_s: the time at which the request ended.
        quiet_from_s, quiet_to_s: the start and the end of the longest interval in which the client got no byte.
        outcome: the outcome of the request. None while it is in flight.
        detail: the reason for the outcome, e.g. `HTTP 503`, `stream cut`, `error event 503`.
        message: the message of the server, shortened.
        tokens: the number of tokens that the client got.
        attempt: in a closed loop, the number of earlier attempts of the same request.
        manner: the behaviour of the client. It decides whether the graph should reject the request.
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
    manner: MannerKind = "stays"

    @property
    def steady(self) -> bool:
        """True if the request belongs to the load that goes on during the whole run, not to a burst."""
        return self.group.kind != "burst"

    @property
    def must_be_refused(self) -> bool:
        """True if the graph should answer with a status 4xx: the prompt is too long, or the request is malformed."""
        return self.manner in ("asks too much", "malformed")

    @property
    def failed(self) -> bool:
        """True if the outcome is a failure. A failure breaks a promise unless it is excused. `WRONG` does not count here."""
        return self.outcome in FAILED

    @property
    def latency_s(self) -> float:
        """The time from the sending of the request to its end, in seconds."""
        return self.ended_s - self.sent_s


@dataclass(slots=True)
class Exchange:
    """The bytes that a client and the graph sent to each other in one request. The logs show them to people. No promise uses them.

    Attributes:
        asked: the body of the request.
        entry: the URL that accepted the request. If none accepted it, the URL that refused it last.
        answer: the body of the answer.
        bounded: true if the answer says where it ends, by its length or by chunks. Otherwise it ends with its connection, and such an
            end looks like a lost connection.
    """

    asked: bytes = b""
    entry: str = ""
    answer: bytearray = field(default_factory=bytearray)
    bounded: bool = True

    def line(self, request: Request) -> str:
        """Return one line of JSON with the request and its exchange. Long bodies are cut in the middle."""
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
    """Return bytes as text. If there are more than `EXCHANGE_MAX_BYTES`, return only the beginning and the end."""
    if len(said) > EXCHANGE_MAX_BYTES:
        half = EXCHANGE_MAX_BYTES // 2
        said = said[:half] + " … ".encode() + said[-half:]
    return said.decode("utf-8", "replace")

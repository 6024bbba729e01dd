"""The step `burst`: send requests in addition to the steady load. The step lands when the burst begins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from graphquake.harness.spec.steps.actions import Landed, Scene, landed_now
from graphquake.harness.spec.steps.kind import (
    SECONDS,
    WAIT_MAX_S,
    Draft,
    Pick,
    Rule,
    Step,
    number,
)
from graphquake.harness.spec.steps.knob import Knob
from graphquake.harness.spec.steps.model import Graph, GraphModel

REQUESTS_MAX: Final = 100_000
TOKENS_MAX: Final = 1_000_000
# The largest number of bursts in a drawn plan.
BURSTS_MAX: Final = 3
# The values that a draw chooses among: numbers of requests, seconds, and shares of clients that leave.
BURSTS: Final = (5, 10, 20, 30, 40)
BURSTS_OVER_S: Final = (0.0, 0.1, 0.25, 0.5, 1.0)
LEAVES: Final = (0.0, 0.0, 0.25, 0.5, 1.0)
# Clients that leave do so before the first token in one burst of three.
AT_ONCE: Final = (False, False, True)
REFUSED: Final = (0.25, 1.0)
LATER: Final = (0.5, 1.0)
# A client that leaves later does so after this part of its answer.
PARTS: Final = (0.25, 0.75)
# A burst of at least this many requests counts as large.
MANY: Final = 25
# A burst that is sent within this time counts as sent at once, in seconds.
AT_ONCE_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class Burst(Step):
    """Send requests in addition to the steady load.

    Attributes:
        requests: the number of requests.
        over_s: the time over which the requests are sent, in seconds. 0 sends all requests at once.
        leave: the share of the clients that close the connection after the first token, 0 to 1.
        leave_at_once: the share of the clients that close the connection before the first token, 0 to 1.
        refused: the share of the clients whose prompts are longer than the model's context, 0 to 1. The graph must refuse such prompts.
        leave_later: the share of the clients that close the connection after the token `at_token`, 0 to 1.
        at_token: the number of tokens after which these clients leave. 1 if there are none.
        malformed: the share of the clients whose requests are malformed, 0 to 1. The graph must refuse such requests.
    """

    requests: int
    over_s: float = 0.0
    leave: float = 0.0
    leave_at_once: float = 0.0
    refused: float = 0.0
    leave_later: float = 0.0
    at_token: int = 1
    malformed: float = 0.0

    verb: ClassVar[str] = "burst"
    form: ClassVar[str] = (
        "burst N over T s[, P% leave][, P% leave at once][, P% leave at token N][, P% refused][, P% malformed]"
    )
    pattern: ClassVar[str] = (
        rf"burst (?P<n>\d{{1,9}}) over (?P<over>{SECONDS}) s(?:, (?P<leave>\d{{1,3}})% leave)?"
        r"(?:, (?P<at_once>\d{1,3})% leave at once)?(?:, (?P<later>\d{1,3})% leave at token (?P<token>\d{1,9}))?"
        r"(?:, (?P<refused>\d{1,3})% refused)?(?:, (?P<malformed>\d{1,3})% malformed)?"
    )
    adds_load: ClassVar[bool] = True
    prior: ClassVar[float] = 0.12

    def __post_init__(self) -> None:
        if not self.leave_later:
            object.__setattr__(self, "at_token", 1)

    def __str__(self) -> str:
        shares = {
            "leave": self.leave,
            "leave at once": self.leave_at_once,
            f"leave at token {self.at_token}": self.leave_later,
            "refused": self.refused,
            "malformed": self.malformed,
        }
        parts = [f", {round(share * 100)}% {what}" for what, share in shares.items() if share]
        return f"burst {self.requests} over {self.over_s:.2f} s{''.join(parts)}"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Burst:
        """Return the step that a text form describes."""
        requests = int(number(found["n"], 1, REQUESTS_MAX, "a number of requests"))
        over_s = number(found["over"], 0, WAIT_MAX_S, "seconds")
        shares = {
            name: number(found[name] or "0", 0, 100, "a share in %") / 100
            for name in ("leave", "at_once", "refused", "later", "malformed")
        }
        if (sum_of := sum(shares.values())) > 1 + 1e-9:
            raise ValueError(f"found shares of {sum_of:.0%} together, expected at most 100%")
        leave, at_once, refused, later, malformed = shares.values()
        token = int(number(found["token"] or "1", 1, TOKENS_MAX, "the number of a token"))
        return cls(requests, over_s, leave, at_once, refused, later, token, malformed)

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw at most `BURSTS_MAX` bursts in each plan. Requests that must be refused are drawn only if the graph file says so."""
        ahead: dict[str, Sequence[float]] = {"requests": BURSTS, "over_s": BURSTS_OVER_S}
        leaves: dict[str, Sequence[float]] = {"leave": LEAVES, "at_once": AT_ONCE}
        return (
            Rule("burst", _draw, may_burst, ahead=ahead | leaves),
            Rule("burst_refused", _draw_refused, _may_refuse, ahead=ahead | {"refused": REFUSED}),
            Rule(
                "burst_later",
                _draw_later,
                _may_leave_later,
                ahead=ahead | {"later": LATER, "part": PARTS},
                seldom=True,
            ),
            Rule(
                "burst_malformed",
                _draw_malformed,
                _may_be_malformed,
                ahead=ahead | {"malformed": REFUSED},
                seldom=True,
            ),
        )

    @property
    def called(self) -> str:
        """The title. Bursts that differ in more than their numbers have titles of their own, so that a sweep tries each of them."""
        if self.malformed:
            return "malformed burst"
        return "burst that leaves later" if self.leave_later else "burst"

    def feature(self, graph: Graph) -> str:
        """Return a text with the size of the burst, its speed, whether clients leave, and whether prompts are too long."""
        del graph
        words = ["burst", "many" if self.requests >= MANY else "few"]
        words += ["at once"] * (self.over_s <= AT_ONCE_S) + ["leave"] * (self.leave > 0)
        words += ["leave before a token"] * (self.leave_at_once > 0)
        words += ["leave later"] * (self.leave_later > 0)
        words += ["refused"] * (self.refused > 0) + ["malformed"] * (self.malformed > 0)
        return " ".join(words)

    @property
    def sends_s(self) -> float:
        """The time over which the requests are sent, in seconds."""
        return self.over_s

    def check(self, model: GraphModel) -> str | None:
        """Return the reason why no prompt can be too long, or no client can leave at its token. None if the burst is possible."""
        if self.refused and not model.spec.load.too_long_tokens:
            return "load.too_long_tokens is missing: it says how long a prompt is that the graph must refuse"
        if self.leave_later and self.at_token > model.spec.load.max_tokens:
            return f"no client can leave at token {self.at_token}: load.max_tokens is {model.spec.load.max_tokens}"
        return None

    def after(self, model: GraphModel) -> GraphModel:
        """Return the model that counts these requests, for the waits for events of the load."""
        return model.with_burst(self.requests, streams=self.leave + self.leave_later > 0)

    async def run(self, scene: Scene) -> Landed:
        """Begin to send the requests, and return at once."""
        scene.clients.burst(scene.number, self)
        return landed_now(f"{self.requests} requests begun")

    def knobs(self) -> tuple[Knob, ...]:
        """Return all numbers of the burst. The shares and `over_s` seldom matter for a failure."""
        return (
            Knob("leave", 0.05, 0.0, seldom=True),
            Knob("leave_at_once", 0.05, 0.0, seldom=True),
            Knob("refused", 0.05, 0.0, seldom=True),
            Knob("leave_later", 0.05, 0.0, seldom=True),
            Knob("at_token", 1.0, 1.0, seldom=True),
            Knob("malformed", 0.05, 0.0, seldom=True),
            Knob("over_s", 0.01, 0.0, seldom=True),
            Knob("requests", 1.0, 1.0),
        )


def may_burst(draft: Draft) -> bool:
    """True if the plan has fewer than `BURSTS_MAX` bursts."""
    return sum(isinstance(step, Burst) for step in draft.steps) < BURSTS_MAX


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    del draft
    leave, at_once = pick.ahead["leave"], pick.ahead["at_once"]
    shares = (0.0, leave) if at_once else (leave, 0.0)
    yield Burst(pick.ahead["requests"], pick.ahead["over_s"], *shares)


def _may_refuse(draft: Draft) -> bool:
    return may_burst(draft) and draft.model.spec.load.too_long_tokens > 0


def _draw_refused(draft: Draft, pick: Pick) -> Iterator[Step]:
    del draft
    yield Burst(pick.ahead["requests"], pick.ahead["over_s"], refused=pick.ahead["refused"])


def _may_leave_later(draft: Draft) -> bool:
    return may_burst(draft) and draft.model.spec.load.max_tokens * min(PARTS) > 1


def _draw_later(draft: Draft, pick: Pick) -> Iterator[Step]:
    at_token = round(pick.ahead["part"] * draft.model.spec.load.max_tokens)
    later = pick.ahead["later"]
    yield Burst(pick.ahead["requests"], pick.ahead["over_s"], leave_later=later, at_token=at_token)


def _may_be_malformed(draft: Draft) -> bool:
    return may_burst(draft) and draft.model.spec.load.malformed


def _draw_malformed(draft: Draft, pick: Pick) -> Iterator[Step]:
    del draft
    yield Burst(pick.ahead["requests"], pick.ahead["over_s"], malformed=pick.ahead["malformed"])

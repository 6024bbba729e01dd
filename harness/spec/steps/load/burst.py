"""The step `burst`: send requests in addition to the steady load. The step lands when the burst begins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from graphquake.harness.spec.steps.actions import Landed, Scene, landed_now
from graphquake.harness.spec.steps.kind import SECONDS, WAIT_MAX_S, Draft, Pick, Rule, Step, number
from graphquake.harness.spec.steps.knob import Knob
from graphquake.harness.spec.steps.model import Graph, GraphModel

REQUESTS_MAX: Final = 100_000
# The largest number of bursts in a drawn plan.
BURSTS_MAX: Final = 3
# The values that a draw chooses among: numbers of requests, seconds, and shares of clients that leave.
BURSTS: Final = (5, 10, 20, 30, 40)
BURSTS_OVER_S: Final = (0.0, 0.1, 0.25, 0.5, 1.0)
LEAVES: Final = (0.0, 0.0, 0.25, 0.5, 1.0)
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
    """

    requests: int
    over_s: float = 0.0
    leave: float = 0.0

    verb: ClassVar[str] = "burst"
    form: ClassVar[str] = "burst N over T s[, P% leave]"
    pattern: ClassVar[str] = (
        rf"burst (?P<n>\d{{1,9}}) over (?P<over>{SECONDS}) s(?:, (?P<leave>\d{{1,3}})% leave)?"
    )
    adds_load: ClassVar[bool] = True
    prior: ClassVar[float] = 0.12

    def __str__(self) -> str:
        left = f", {round(self.leave * 100)}% leave" if self.leave else ""
        return f"burst {self.requests} over {self.over_s:.2f} s{left}"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Burst:
        """Return the step that a text form describes."""
        requests = int(number(found["n"], 1, REQUESTS_MAX, "a number of requests"))
        over_s = number(found["over"], 0, WAIT_MAX_S, "seconds")
        return cls(requests, over_s, number(found["leave"] or "0", 0, 100, "a share in %") / 100)

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw at most `BURSTS_MAX` bursts in each plan."""
        ahead = {"requests": BURSTS, "over_s": BURSTS_OVER_S, "leave": LEAVES}
        return (Rule("burst", _draw, may_burst, ahead=ahead),)

    def feature(self, graph: Graph) -> str:
        """Return a text with the size of the burst, its speed, and whether clients leave, e.g. `burst many at once`."""
        del graph
        words = ["burst", "many" if self.requests >= MANY else "few"]
        words += ["at once"] * (self.over_s <= AT_ONCE_S) + ["leave"] * (self.leave > 0)
        return " ".join(words)

    @property
    def sends_s(self) -> float:
        """The time over which the requests are sent, in seconds."""
        return self.over_s

    def after(self, model: GraphModel) -> GraphModel:
        """Return the model that counts these requests, for the waits for events of the load."""
        return model.with_burst(self.requests, streams=self.leave > 0)

    async def run(self, scene: Scene) -> Landed:
        """Begin to send the requests, and return at once."""
        scene.clients.burst(scene.number, self)
        return landed_now(f"{self.requests} requests begun")

    def knobs(self) -> tuple[Knob, ...]:
        """Return all numbers of the burst. `leave` and `over_s` seldom matter for a failure."""
        return (
            Knob("leave", 0.05, 0.0, seldom=True),
            Knob("over_s", 0.01, 0.0, seldom=True),
            Knob("requests", 1.0, 1.0),
        )


def may_burst(draft: Draft) -> bool:
    """True if the plan has fewer than `BURSTS_MAX` bursts."""
    return sum(isinstance(step, Burst) for step in draft.steps) < BURSTS_MAX


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    del draft
    yield Burst(pick.ahead["requests"], pick.ahead["over_s"], pick.ahead["leave"])

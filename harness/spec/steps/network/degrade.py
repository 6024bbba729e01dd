"""The steps `lose`, `slow` and `delay`: the link works, but badly. Failures in that time are excused, wrong answers are not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final

from graphquake.harness.spec.steps.actions import FaultOfEdges
from graphquake.harness.spec.steps.kind import SECONDS, WAIT_MAX_S, Rule, number
from graphquake.harness.spec.steps.knob import Knob
from graphquake.harness.spec.steps.network.fault import FOR, OneLink, link_rule
from graphquake.harness.spec.steps.network.link import LINK, Link

DELAY_MAX_MS: Final = 60_000
# The values among which a draw chooses.
PERCENTS: Final = (5, 20)
RATES_MB: Final = (0.05, 1.0)
DELAYS_MS: Final = (50, 400)


@dataclass(frozen=True, slots=True)
class Lose(OneLink):
    """Drop a share of the packets of a link, each by chance.

    Attributes:
        percent: the share of lost packets, in percent.
    """

    percent: int = PERCENTS[0]

    verb: ClassVar[str] = "lose"
    form: ClassVar[str] = "lose P% between END and END for T s | lose P% from END to END for T s"
    pattern: ClassVar[str] = rf"lose (?P<percent>\d{{1,3}})% {LINK}{FOR}"
    kind: ClassVar[FaultOfEdges] = "lose"
    degrades: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"lose {self.percent}% {self.link.text()} for {self.for_s:.2f} s"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Lose:
        """Return the step that a text form describes."""
        percent = int(number(found["percent"], 1, 100, "percent"))
        return cls(number(found["for"], 0.01, WAIT_MAX_S, "seconds"), Link.parse(found), percent)

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a loss between a replica and all others, or between a replica and another role."""
        return link_rule(cls, {"percent": PERCENTS})

    @property
    def value(self) -> float:
        """The share, 0 to 1."""
        return self.percent / 100

    def knobs(self) -> tuple[Knob, ...]:
        """Return the length of the fault, and the share."""
        return (*OneLink.knobs(self), Knob("percent", 1, 1))


@dataclass(frozen=True, slots=True)
class Slow(OneLink):
    """Limit the rate of each direction of a link.

    Attributes:
        rate_mb: the rate, in megabytes per second.
    """

    rate_mb: float = RATES_MB[-1]

    verb: ClassVar[str] = "slow"
    form: ClassVar[str] = (
        "slow between END and END to R MB/s for T s | slow from END to END to R MB/s for T s"
    )
    pattern: ClassVar[str] = rf"slow {LINK} to (?P<rate>{SECONDS}) MB/s{FOR}"
    kind: ClassVar[FaultOfEdges] = "slow"
    degrades: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"slow {self.link.text()} to {self.rate_mb:g} MB/s for {self.for_s:.2f} s"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Slow:
        """Return the step that a text form describes."""
        rate_mb = number(found["rate"], 0.01, 10_000, "MB/s")
        return cls(number(found["for"], 0.01, WAIT_MAX_S, "seconds"), Link.parse(found), rate_mb)

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a slow link between a replica and all others, or between a replica and another role."""
        return link_rule(cls, {"rate_mb": RATES_MB})

    @property
    def value(self) -> float:
        """The rate, in bytes per second."""
        return self.rate_mb * 1e6


@dataclass(frozen=True, slots=True)
class Delay(OneLink):
    """Hold each packet of a link back for a time.

    Attributes:
        by_ms: the time, in milliseconds, for each direction.
    """

    by_ms: int = DELAYS_MS[0]

    verb: ClassVar[str] = "delay"
    form: ClassVar[str] = (
        "delay between END and END by N ms for T s | delay from END to END by N ms for T s"
    )
    pattern: ClassVar[str] = rf"delay {LINK} by (?P<by>\d{{1,5}}) ms{FOR}"
    kind: ClassVar[FaultOfEdges] = "delay"
    degrades: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"delay {self.link.text()} by {self.by_ms} ms for {self.for_s:.2f} s"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Delay:
        """Return the step that a text form describes."""
        by_ms = int(number(found["by"], 1, DELAY_MAX_MS, "ms"))
        return cls(number(found["for"], 0.01, WAIT_MAX_S, "seconds"), Link.parse(found), by_ms)

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a delay between a replica and all others, or between a replica and another role."""
        return link_rule(cls, {"by_ms": DELAYS_MS})

    @property
    def value(self) -> float:
        """The time, in seconds."""
        return self.by_ms / 1000

    def knobs(self) -> tuple[Knob, ...]:
        """Return the length of the fault, and the delay."""
        return (*OneLink.knobs(self), Knob("by_ms", 1, 1))

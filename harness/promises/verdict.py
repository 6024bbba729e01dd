"""What a run says: violations, and the verdict that they make up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from graphquake.harness.history.history import History

Says: TypeAlias = Literal["kept", "broken", "invalid"]


@dataclass(frozen=True, slots=True)
class Violation:
    """One place in one history where a promise does not hold.

    Attributes:
        promise: its name.
        signature: what makes two violations the same, e.g. `error_window / HTTP 503 / path left`.
        at_s: when it begins, on the run's clock.
        seen: what was seen, in words.
        after: the last fault that had landed by then, as a step; empty if none.
        request: the number of the request that shows it; -1 if it is not about one.
    """

    promise: str
    signature: str
    at_s: float
    seen: str
    after: str = ""
    request: int = -1


# How a failed answer is told in a stream, and how without one: which of the two a request was is chance.
STREAMED: Final = {"stream cut": "connection lost", "error event": "HTTP 5"}
# What failures that come within the window are called if they are more than may be; whether one came after it is chance.
TOO_MANY: Final = "too many"


def same(one: str, other: str) -> bool:
    """Whether two signatures are of the same violation.

    They are if they are equal, or but for whether the answer that failed was a stream, or whether the failures were too many or too late.
    """
    ones, others = one.split(" / "), other.split(" / ")
    return len(ones) == len(others) and all(
        _alike(a, b) or _alike(b, a) for a, b in zip(ones, others, strict=True)
    )


def _alike(word: str, other: str) -> bool:
    return word in (other, TOO_MANY) or (word in STREAMED and other.startswith(STREAMED[word]))


def violation_in(
    history: History, promise: str, what: str, at_s: float, seen: str, request: int = -1
) -> Violation:
    """A violation, with the last fault before it.

    Args:
        what: the rest of its signature.
        at_s: when it begins.
        seen: what was seen, in words.
        request: the number of the request that shows it, if one does.
    """
    after = [step for step in history.faults() if step.at_s <= at_s]
    return Violation(
        promise, f"{promise} / {what}", at_s, seen, after[-1].step if after else "", request
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run says.

    Attributes:
        says: kept, broken, or invalid (the run proves nothing).
        violations: in order of time; empty unless broken.
        causes: why it is invalid; empty otherwise.
        weak: less than a quarter of the requests could be judged.
    """

    says: Says
    violations: tuple[Violation, ...] = ()
    causes: tuple[str, ...] = ()
    weak: bool = False

    @property
    def signatures(self) -> tuple[str, ...]:
        """The different signatures, the earliest first."""
        return tuple(dict.fromkeys(v.signature for v in self.violations))

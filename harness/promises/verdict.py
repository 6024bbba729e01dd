"""Violations of promises, and the verdict of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from graphquake.harness.history.history import History
from graphquake.harness.promises.signature import SEPARATOR, Signature

VerdictKind: TypeAlias = Literal["kept", "broken", "invalid"]


@dataclass(frozen=True, slots=True)
class Violation:
    """One place in one history where a promise does not hold.

    Attributes:
        signature: equal for two violations of the same bug, e.g. `error_window / HTTP 503 / path left`.
        at_s: when it begins, in seconds on the run's clock.
        seen: the observation, in words.
        after: the last fault that had landed by then, as a step. Empty if none had.
        request: the number of the request that shows it, or -1 if no single request does.
        too_many: each of the failures is excused, but there are more of them than may be.
    """

    signature: Signature
    at_s: float
    seen: str
    after: str = ""
    request: int = -1
    too_many: bool = False

    @property
    def promise(self) -> str:
        """The name of the promise that does not hold."""
        return self.signature.promise


def violation_in(
    history: History,
    promise: str,
    what: str,
    at_s: float,
    seen: str,
    request: int = -1,
    *,
    too_many: bool = False,
) -> Violation:
    """A violation, with the last fault before it.

    Args:
        history: the run that shows it.
        promise: the name of the promise.
        what: the rest of its signature: the class of the failure, and if it matters, ` / path left` or ` / no path`.
        at_s: when it begins, in seconds on the run's clock.
        seen: the observation, in words.
        request: the number of the request that shows it, if one does.
        too_many: each of the failures is excused, but there are more of them than may be.
    """
    after = [step for step in history.faults() if step.at_s <= at_s]
    signature = Signature.parse(f"{promise}{SEPARATOR}{what}")
    return Violation(signature, at_s, seen, str(after[-1].step) if after else "", request, too_many)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of a run.

    Attributes:
        kind: kept, broken, or invalid (the run proves nothing).
        violations: the violations in order of time. Empty unless broken.
        causes: the reasons why the run is invalid. Empty otherwise.
        weak: true if less than a quarter of the requests could be judged.
    """

    kind: VerdictKind
    violations: tuple[Violation, ...] = ()
    causes: tuple[str, ...] = ()
    weak: bool = False

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """The different signatures, the earliest first."""
        return tuple(dict.fromkeys(v.signature for v in self.violations))

    def to_json(self) -> dict[str, Any]:
        """The form in which a run's folder keeps it. A signature is kept as its text."""
        return {
            "says": self.kind,
            "violations": [
                {"promise": one.promise} | asdict(one) | {"signature": str(one.signature)}
                for one in self.violations
            ],
            "causes": self.causes,
            "weak": self.weak,
        }

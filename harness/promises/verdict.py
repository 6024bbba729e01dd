"""The data of a judgement: the violations of promises in one run, and the verdict of the run."""

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
        signature: the signature, e.g. `error_window / HTTP 503 / path left`. Violations of the same bug have equal signatures.
        at_s: the time at which the violation begins, in seconds on the run's clock.
        seen: the observation that shows the violation, in words.
        after: the text form of the last fault that landed before the violation. Empty if no fault had landed.
        request: the number of the request that shows the violation, or -1 if no single request shows it.
        too_many: true if each failure is excused by itself, but more requests failed than the promise allows.
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
    """Return a violation. The last fault that landed before the violation is looked up in the history.

    Args:
        history: the history of the run that shows the violation.
        promise: the name of the promise.
        what: the rest of the signature: the class of the failure. ` / path left` or ` / no path` follows, if the promise depends on a path.
        at_s: the time at which the violation begins, in seconds on the run's clock.
        seen: the observation that shows the violation, in words.
        request: the number of the request that shows the violation, or -1 if no single request shows it.
        too_many: true if each failure is excused by itself, but more requests failed than the promise allows.
    """
    after = [step for step in history.faults() if step.at_s <= at_s]
    signature = Signature.parse(f"{promise}{SEPARATOR}{what}")
    return Violation(signature, at_s, seen, str(after[-1].step) if after else "", request, too_many)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of a run.

    Attributes:
        kind: `kept`, `broken`, or `invalid` (the run proves nothing).
        violations: the violations, in order of time. Empty unless `kind` is `broken`.
        causes: the reasons why the run is invalid, in words. Empty unless `kind` is `invalid`.
        weak_because: the reasons why the run proves little, in words: few requests could be judged, its faults hit idle replicas, or an
            event did not come for which a step waited.
        excused: the number of requests that failed, and of which no violation tells. A run may be kept although clients saw failures.
    """

    kind: VerdictKind
    violations: tuple[Violation, ...] = ()
    causes: tuple[str, ...] = ()
    weak_because: tuple[str, ...] = ()
    excused: int = 0

    @property
    def weak(self) -> bool:
        """True if the run proves little."""
        return bool(self.weak_because)

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """The signatures of the violations without repetitions, the earliest first."""
        return tuple(dict.fromkeys(v.signature for v in self.violations))

    @property
    def text(self) -> str:
        """The verdict in words: why it is weak, and the number of failures that a kept run excused."""
        weak = f" (weak: {'; '.join(self.weak_because)})" if self.weak else ""
        plural = "s" if self.excused > 1 else ""
        is_kept = self.kind == "kept" and self.excused
        excused = f", {self.excused} failed request{plural} excused" if is_kept else ""
        return f"{self.kind}{weak}{excused}"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON table for verdict.json in the folder of a run. Signatures are in their text form."""
        return {
            "says": self.kind,
            "violations": [
                {"promise": one.promise} | asdict(one) | {"signature": str(one.signature)}
                for one in self.violations
            ],
            "causes": self.causes,
            "weak": self.weak,
            "weak_because": self.weak_because,
            "excused": self.excused,
        }

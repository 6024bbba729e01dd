"""The signature of a violation. Violations with equal signatures count as the same bug.

A signature has three parts: the promise, the class of the failure as it was seen, and whether a path was up. The text form of a signature
is `promise / class / path`. A signature leaves out ids, times, messages and the phase, because they differ between runs of the same bug.

Each class of failure belongs to one *family*. Two signatures are equal if they have the same promise, family and path. So equality is an
equivalence relation.

- `stream cut` belongs to the family `connection lost`. Both mean a lost connection: of a streamed answer, or of another one.
- `error event 503` belongs to the family `HTTP 503`. Both are the same error, but an error event comes after the stream has begun. The
  event has the status (in the field `code` in Dynamo, vLLM, SGLang and the reference graph). So 500 and 503 stay two bugs, and a known
  case of 500 does not explain a failure with 503.
- `error event` without a status is its own family, because the status is not known.
- A violation of `error_window` because of too many excused failures has no class of its own. Its class is the most frequent class among
  these failures: chance decides whether one of them comes after the window and is a violation itself. `Violation.too_many` marks such
  violations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from graphquake.harness.history.request import ERROR_EVENT

PathWord: TypeAlias = Literal["path left", "no path", ""]
PATH_WORDS: Final[tuple[PathWord, ...]] = get_args(PathWord)

SEPARATOR: Final = " / "
CONNECTION_LOST: Final = "connection lost"
STREAM_CUT: Final = "stream cut"


def family_of(what: str) -> str:
    """Return the family of a class of failure. The family of most classes is the class itself."""
    if what == STREAM_CUT:
        return CONNECTION_LOST
    if what.startswith(f"{ERROR_EVENT} "):
        return f"HTTP {what.removeprefix(ERROR_EVENT).strip()}"
    return what


@dataclass(frozen=True, slots=True, eq=False)
class Signature:
    """The promise, the class of failure and the path of a violation. Two are equal if promise, family of the class and path are.

    Attributes:
        promise: the name of the promise.
        what: the class of the failure as it was seen, e.g. `HTTP 503` or `stream cut`.
        path: `path left` if a path was up during the failure, else `no path`. Empty if the promise does not depend on a path.
    """

    promise: str
    what: str
    path: PathWord = ""

    @property
    def family(self) -> tuple[str, str, str]:
        """The promise, the family of the failure, and the path. Signatures are compared and hashed by these three."""
        return self.promise, family_of(self.what), self.path

    @classmethod
    def parse(cls, text: str) -> Signature:
        """Return the signature that a text form describes. `parse` is the inverse of `str`."""
        promise, _, rest = text.partition(SEPARATOR)
        what, separator, last = rest.rpartition(SEPARATOR)
        for path in PATH_WORDS:
            if separator and path and path == last:
                return cls(promise, what, path)
        return cls(promise, rest)

    def __eq__(self, other: object) -> bool:
        """True if `family` is equal for both signatures."""
        return isinstance(other, Signature) and self.family == other.family

    def __hash__(self) -> int:
        """Return the hash of `family`, so that equal signatures have equal hashes."""
        return hash(self.family)

    def __str__(self) -> str:
        """Return `promise / class / path`, with the class as it was seen, not its family."""
        return SEPARATOR.join(part for part in (self.promise, self.what, self.path) if part)

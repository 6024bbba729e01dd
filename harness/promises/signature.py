"""The signature of a violation: equal signatures are the same bug.

A signature has three parts: the promise, the class of the failure as it was seen, and whether a path was up. It leaves out ids, times,
messages and the phase, which differ from one run of the same bug to the next. Its text form is `promise / class / path`.

Two signatures are equal if their *families* are equal. So equality is an equivalence relation:

- `stream cut` belongs to the family `connection lost`: which of the two a client sees depends on whether the request was a stream.
- `error event 503` belongs to the family `HTTP 503`: the same error, sent after the stream had begun. Its status is in the event (`code`
  in Dynamo, vLLM, SGLang and the reference graph). So 500 and 503 stay two bugs, and a case of one does not excuse the other.
- `error event` without a status is a separate family, because its status is not known.
- Too many failures within one window have no separate word. They are signed by the family that most of them belong to, since it is
  chance whether one of them falls behind the window. `Violation.too_many` tells the two apart.
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
    """The family of a class of failure. Most classes are their own family."""
    if what == STREAM_CUT:
        return CONNECTION_LOST
    if what.startswith(f"{ERROR_EVENT} "):
        return f"HTTP {what.removeprefix(ERROR_EVENT).strip()}"
    return what


@dataclass(frozen=True, slots=True, eq=False)
class Signature:
    """The promise, the class of failure and the path of a violation. Signatures are equal if their families are equal.

    Attributes:
        promise: the name of the promise.
        what: the class of the failure as it was seen, e.g. `HTTP 503` or `stream cut`.
        path: whether a path was up meanwhile. Empty if the promise does not ask.
    """

    promise: str
    what: str
    path: PathWord = ""

    @property
    def family(self) -> tuple[str, str, str]:
        """The promise, the family of the failure, and the path. Equality and hash follow from these three."""
        return self.promise, family_of(self.what), self.path

    @classmethod
    def parse(cls, text: str) -> Signature:
        """The signature of a text form. It is the inverse of `str`."""
        promise, _, rest = text.partition(SEPARATOR)
        what, separator, last = rest.rpartition(SEPARATOR)
        for path in PATH_WORDS:
            if separator and path and path == last:
                return cls(promise, what, path)
        return cls(promise, rest)

    def __eq__(self, other: object) -> bool:
        """True if both are of one family."""
        return isinstance(other, Signature) and self.family == other.family

    def __hash__(self) -> int:
        """Follows from the family, as equality does."""
        return hash(self.family)

    def __str__(self) -> str:
        """`promise / class / path`, in the words that were seen."""
        return SEPARATOR.join(part for part in (self.promise, self.what, self.path) if part)

"""The promise `honest`: an answer with status 200 is what it claims to be. It needs no oracle.

A graph may fail, but it has to say so: by a status, by an error in the stream, or by a connection that breaks. An answer that ends like a
complete one, and is not complete, misleads its client. So no fault excuses it.

The clients decide which answers these are (see `clients.answers`). Three kinds of answers are not meant:

- An answer whose connection broke. If an answer gives neither a length nor chunks, its end and a broken connection look the same.
- An answer with the finish reason `error`, `abort` or `cancelled`. It says itself that it failed.
- A wrong answer that only the oracle, or a check of `answers`, recognizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from graphquake.harness.history.history import History
from graphquake.harness.history.request import Outcome, Request
from graphquake.harness.promises.availability import Availability
from graphquake.harness.promises.verdict import Violation, violation_in

# How an answer that arrived whole can be incomplete, and how it can belong to another request. These are values of `Request.detail`.
CUT_SHORT: Final = frozenset({"no [DONE]", "no JSON", "no finish reason"})
MISTAKEN: Final = frozenset({"repeated id", "other model", "empty answer"})
# What `answers` recognizes without its oracle. If a graph does not promise `answers`, these belong to `honest`.
_WITHOUT_ORACLE: Final = frozenset({"mixed ids", "wrong length"})


def honest(history: History, up: Availability) -> Iterator[Violation]:
    """No answer with status 200 is empty, cut short, or from another request. No fault excuses one that is."""
    del up
    for request in history.requests:
        if is_dishonest(history, request):
            said = f": {request.message}" if request.message else ""
            yield violation_in(
                history,
                "honest",
                request.detail,
                request.ended_s,
                f"request {request.number} got an answer with status 200: {request.detail}{said}",
                request.number,
            )


def is_dishonest(history: History, request: Request) -> bool:
    """True if `honest` judges the outcome of this request, so that no other promise does."""
    made = history.spec.promises.made
    if "honest" not in made:
        return False
    if request.outcome == Outcome.TRUNCATED:
        return request.detail in CUT_SHORT
    mistaken = MISTAKEN if "answers" in made else MISTAKEN | _WITHOUT_ORACLE
    return request.outcome == Outcome.WRONG and request.detail in mistaken

"""Signatures: which violations count as the same bug."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquake.harness.promises.signature import PATH_WORDS, Signature, family_of

pytestmark = pytest.mark.simulated

PROMISES = ("error_window", "recovery", "answers", "no_leak", "promises:no_5xx")
# Every class that a promise of ours signs by, words of old cases, and statuses that are near each other.
CLASSES = (
    "HTTP 404", "HTTP 500", "HTTP 503", "error event", "error event 404", "error event 500", "error event 503",
    "connection lost", "stream cut", "connection refused", "error body", "no [DONE]", "no JSON", "no answer",
    "no finish reason", "finish reason error", "no byte", "deadline", "too many", "wrong tokens", "tokens lost",
    "too many tokens", "mixed ids", "wrong length", "gauge", "process", "socket", "gpu memory",
    "decode died / signal 9", "frontend lists too many", "frontend lists too few", "frontend not ready",
    "frontend ready without a path", "shed", "falls behind", "slower",
)  # fmt: skip
SIGNATURES = st.builds(
    Signature, st.sampled_from(PROMISES), st.sampled_from(CLASSES), st.sampled_from(PATH_WORDS)
)
EVERY = [Signature(p, what, path) for p in PROMISES[:2] for what in CLASSES for path in PATH_WORDS]


def test_equality_is_an_equivalence_relation() -> None:
    """Over all words, equality is reflexive, symmetric and transitive: it parts them into classes that do not overlap."""
    equal = {one: {other for other in EVERY if one == other} for one in EVERY}
    for one in EVERY:
        assert one in equal[one]
        assert all(equal[other] == equal[one] for other in equal[one])


@given(SIGNATURES, SIGNATURES, SIGNATURES)
def test_any_three_signatures_agree(one: Signature, two: Signature, three: Signature) -> None:
    """Equality of signatures is symmetric and transitive, and equal signatures have equal hashes."""
    assert (one == two) == (two == one)
    assert one != two or hash(one) == hash(two)
    assert not (one == two and two == three) or one == three
    assert (one == two) == (one.family == two.family)


@given(SIGNATURES)
def test_the_text_form_is_read_as_it_was_written(signature: Signature) -> None:
    """A signature that is read from its text has the same parts, not just the same family."""
    read = Signature.parse(str(signature))
    assert (read.promise, read.what, read.path) == (
        signature.promise,
        signature.what,
        signature.path,
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("stream cut", "connection lost"),
        ("error event 503", "HTTP 503"),
        ("error event 404", "HTTP 404"),
    ],
)
def test_one_failure_in_a_stream_or_not_is_one_family(one: str, other: str) -> None:
    """It is chance whether the request that failed was a stream, so both words name one bug."""
    assert Signature("recovery", one, "no path") == Signature("recovery", other, "no path")


def test_signatures_of_different_bugs_differ() -> None:
    """Another promise, status, class or path is another bug. `too many` only equals itself."""
    families = {family_of(what) for what in CLASSES}
    assert len(families) == len(CLASSES) - 4
    assert Signature("recovery", "HTTP 503", "no path") != Signature(
        "recovery", "HTTP 503", "path left"
    )
    assert Signature("recovery", "HTTP 503") != Signature("error_window", "HTTP 503")
    assert [one for one in CLASSES if family_of(one) == family_of("too many")] == ["too many"]
    assert Signature("no_leak", "gauge") != "no_leak / gauge"

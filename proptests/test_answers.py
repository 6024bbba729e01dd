"""Tests of the outcomes of requests, by their answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquake.harness.clients.answers import Checker, Got, body_of, prompt_of
from graphquake.harness.clients.load import Load
from graphquake.harness.errors import InputError
from graphquake.harness.history.request import Exchange, Group, Request

from support.made import spec_of

pytestmark = pytest.mark.simulated


def right(prompt: str, max_tokens: int) -> str:
    """An oracle that returns the prompt backwards."""
    return prompt[::-1][:max_tokens]


EXACT = spec_of(
    load={"model": "tiny", "prompt_tokens": 8, "max_tokens": 8},
    promises={"answers": {"oracle": "test_answers:right"}},
)
LOOSE = spec_of(load={"model": "tiny", "prompt_tokens": 8, "max_tokens": 8})


def stream(
    parts: list[str],
    *,
    finish: str | None = "length",
    done: bool = True,
    ids: tuple[str, ...] = ("x",),
) -> bytes:
    """Return the body of an event stream."""
    chunks: list[dict[str, Any]] = [
        {"id": ids[at % len(ids)], "choices": [{"index": 0, "text": part}]}
        for at, part in enumerate(parts)
    ]
    if finish:
        chunks.append(
            {"id": ids[0], "choices": [{"index": 0, "text": "", "finish_reason": finish}]}
        )
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def outcome(body: bytes, *, exact: bool = True) -> tuple[str, str]:
    """Check a streamed body as the answer to request 3, and return its outcome and detail.

    Args:
        body: the event stream.
        exact: the oracle knows the right answer.
    """
    got = Checker(EXACT if exact else LOOSE).check_stream(3, body)
    return got.outcome, got.detail


ANSWER = right(prompt_of(EXACT.load, 3), 8)


@given(st.lists(st.integers(1, 8), max_size=6))
def test_a_right_answer_is_right_however_it_is_cut_into_chunks(cuts: list[int]) -> None:
    """The right text is right in any number of chunks."""
    parts, rest = [], ANSWER
    for cut in cuts:
        parts.append(rest[:cut])
        rest = rest[cut:]
    assert outcome(stream([*parts, rest])) == ("ok", "")


@given(st.integers(0, 7), st.sampled_from(["lost", "twice", "other"]))
def test_one_wrong_token_is_seen_wherever_it_stands(at: int, how: str) -> None:
    """A text with a lost, repeated or changed token is wrong."""
    text = {
        "lost": ANSWER[:at] + ANSWER[at + 1 :],
        "twice": ANSWER[: at + 1] + ANSWER[at:],
        "other": ANSWER[:at] + ("#") + ANSWER[at + 1 :],
    }[how]
    assert outcome(stream([text]))[0] == "wrong"


def test_the_answer_to_another_request_is_wrong() -> None:
    """The right answer to another request is wrong."""
    assert outcome(stream([right(prompt_of(EXACT.load, 4), 8)])) == ("wrong", "wrong tokens")


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("", "error event"),
        (', "code": 503', "error event 503"),
        (', "code": "gone"', "error event"),
        (', "code": 1001', "error event"),
        (', "code": [503]', "error event"),
    ],
)
def test_an_error_event_is_an_error_with_the_status_that_it_names(code: str, detail: str) -> None:
    """Engines send an error and then [DONE], with HTTP status 200. The event's own `code` is the status that counts."""
    body = f'data: {{"error": {{"message": "worker gone"{code}}}}}\n\ndata: [DONE]\n\n'
    assert outcome(body.encode()) == ("error", detail)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (stream([ANSWER], done=False), "no [DONE]"),
        (stream([ANSWER], finish=None), "no finish reason"),
        (stream([ANSWER])[:-30], "no JSON"),
        (b"", "no [DONE]"),
    ],
)
def test_an_early_end_is_truncated(body: bytes, detail: str) -> None:
    """A stream without its end is truncated, although all tokens came."""
    assert outcome(body) == ("truncated", detail)


def test_one_stream_with_two_ids_is_wrong_even_without_an_oracle() -> None:
    """A stream with two ids is wrong."""
    assert outcome(stream(["a", "b"], ids=("x", "y")), exact=False) == ("wrong", "mixed ids")


def test_a_length_that_contradicts_its_finish_reason_is_wrong() -> None:
    """Without an oracle, the tokens that the server claims must fit max_tokens."""
    answer = {
        "id": "x",
        "choices": [{"text": "abc", "finish_reason": "length"}],
        "usage": {"completion_tokens": 3},
    }
    got = Checker(LOOSE).check_whole(3, json.dumps(answer).encode())
    assert (got.outcome, got.detail) == ("wrong", "wrong length")


def test_whole_answers_are_checked_like_streams() -> None:
    """An answer that is not streamed is one JSON body."""
    answer = {"id": "x", "choices": [{"text": ANSWER, "finish_reason": "length"}]}
    checker = Checker(EXACT)
    assert checker.check_whole(3, json.dumps(answer).encode()).outcome == "ok"
    assert checker.check_whole(4, json.dumps(answer).encode()).outcome == "wrong"
    assert checker.check_whole(3, b'{"error": "no"}').outcome == "error"
    assert checker.check_whole(3, b'{"err').outcome == "truncated"


def test_answers_that_come_at_once_are_checked_one_in_each_turn_of_the_loop() -> None:
    """Requests that are due can leave between two checks, so a slow oracle does not make the clients late."""
    asyncio.run(check_many_at_once(20))


async def check_many_at_once(many: int) -> None:
    """Give a load many answers at once, and assert that no turn of the event loop checks two of them."""
    load = Load(EXACT, ["http://127.0.0.1:9"], 0.0, [])
    turn, turns_of_checks = 0, []

    def check(number: int, body: bytes) -> Got:
        turns_of_checks.append(turn)
        return Checker(EXACT).check_whole(number, body)

    async def count_turns() -> None:
        nonlocal turn
        while len(turns_of_checks) < many:
            turn += 1
            await asyncio.sleep(0)

    load._checker.check_whole = check  # type: ignore[method-assign]
    requests = [Request(at, Group("steady"), stream=False, intended_s=0.0) for at in range(many)]
    async with asyncio.timeout(5):
        await asyncio.gather(
            count_turns(),
            *(load._check(one, Exchange(answer=bytearray(b"{}"))) for one in requests),
        )
    assert len(set(turns_of_checks)) == many


@given(st.integers(0, 10**6), st.integers(1, 200))
def test_prompts_follow_from_seed_and_number_alone(number: int, tokens: int) -> None:
    """The same number gives the same prompt, of as many characters as tokens were asked for."""
    load = spec_of(load={"model": "tiny", "prompt_tokens": tokens}).load
    prompt = prompt_of(load, number)
    assert prompt == prompt_of(load, number)
    assert len(prompt) == tokens
    assert prompt.isalpha()
    assert prompt.islower()
    assert body_of(load, number, stream=True)["stream"] is True


def test_prompts_of_different_requests_differ() -> None:
    """Two requests have different prompts, because a swapped answer would look right otherwise."""
    assert len({prompt_of(EXACT.load, number) for number in range(1000)}) == 1000


def test_an_oracle_that_cannot_be_imported_is_an_input_error() -> None:
    """An oracle that can't be imported is an error that names file and key."""
    spec = spec_of(promises={"answers": {"oracle": "no_such_module:right"}})
    with pytest.raises(
        InputError, match=r"made\.toml: promises\.answers\.oracle: no_such_module:right"
    ):
        Checker(spec)

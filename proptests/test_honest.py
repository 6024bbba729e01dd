"""The promise `honest`: which answers with status 200 are not what they claim to be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquake.harness.clients.answers import Checker, Got
from graphquake.harness.clients.identity import NAMED_MIN, Identities, looks_random
from graphquake.harness.clients.load import Load
from graphquake.harness.history.request import Group, Outcome, Request

from support.made import Made, healthy, says, spec_of
from support.planted import planted
from support.toys import in_loop
from support.undisturbed import run_live

UUID = "cmpl-3f2a9c1e-77d0-4b6a-9e52-0c8d1f4e6ab{}"
LOOSE = spec_of(load={"model": "tiny", "prompt_tokens": 8, "max_tokens": 8})


def whole(text: str = "abcdefgh", **changes: Any) -> bytes:
    """Return the body of an answer that is not streamed."""
    answer = {"id": "x", "model": "tiny", "choices": [{"text": text, "finish_reason": "length"}]}
    return json.dumps(answer | changes).encode()


def got(*bodies: bytes) -> list[Got]:
    """Check these answers to the requests 0, 1, … one after the other."""
    checker = Checker(LOOSE)
    return [checker.check_whole(number, body) for number, body in enumerate(bodies)]


def failing(detail: str, outcome: Outcome = Outcome.TRUNCATED, **changes: object) -> Made:
    """Return a run with a kill at 2 s, and one request that fails 0.5 s later."""
    return healthy(**changes).step("kill decode 0", 2.0).ask(2.5, outcome=outcome, detail=detail)


@pytest.mark.simulated
@pytest.mark.parametrize("detail", ["no [DONE]", "no JSON", "no finish reason"])
def test_no_fault_excuses_an_answer_that_is_cut_short(detail: str) -> None:
    """An answer that ends properly before it is complete is a violation of `honest` alone. Without the promise, the fault excuses it."""
    assert says(failing(detail)) == ("broken", (f"honest / {detail}",))
    assert says(failing(detail, promises={"honest": False}))[0] == "kept"


@pytest.mark.simulated
def test_a_broken_connection_is_not_dishonest() -> None:
    """A client notices that its connection broke, so a fault excuses that."""
    assert says(failing("stream cut"))[0] == "kept"


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("detail", "promise", "without_honest"),
    [
        ("repeated id", "honest", "answers"),
        ("empty answer", "honest", "answers"),
        ("mixed ids", "answers", "answers"),
        ("wrong tokens", "answers", "answers"),
    ],
)
def test_one_promise_judges_each_wrong_answer(
    detail: str, promise: str, without_honest: str
) -> None:
    """`honest` judges what only it recognizes, and `answers` judges the rest. If one of them is switched off, the other one helps out."""
    wrong = failing(detail, Outcome.WRONG)
    assert says(wrong) == ("broken", (f"{promise} / {detail}",))
    off = failing(detail, Outcome.WRONG, promises={"honest": False})
    assert says(off) == ("broken", (f"{without_honest} / {detail}",))
    no_oracle = failing(detail, Outcome.WRONG, promises={"answers": False})
    expected = () if detail == "wrong tokens" else (f"honest / {detail}",)
    assert says(no_oracle)[1] == expected


@pytest.mark.simulated
def test_an_id_that_another_request_got_is_wrong() -> None:
    """Two requests with the same random id are a mistake. The second attempt of one request is not."""
    checker = Checker(LOOSE)
    first, again = (checker.check_whole(7, whole(id=UUID.format(1))) for _ in range(2))
    assert (first.outcome, again.outcome) == (Outcome.OK, Outcome.OK)
    other = checker.check_whole(8, whole(id=UUID.format(1)))
    assert (other.outcome, other.detail) == (Outcome.WRONG, "repeated id")
    assert "request 7" in other.message
    assert checker.check_whole(9, whole(id=UUID.format(2))).outcome == Outcome.OK


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("x", False),
        ("cmpl-17", False),
        ("cmpl-0000000000000017", False),
        ("chatcmpl-1764350000", False),
        ("chatcmpl-1764350000123", False),
        (UUID.format(0), True),
        ("gq-0123456789abcdef", True),
        ("3f2a9c1e77d04b6a9e520c8d1f4e6ab0", True),
    ],
)
def test_only_ids_that_look_random_are_compared(said: str, *, expected: bool) -> None:
    """Counters and clocks give the same id twice after a restart. UUIDs do not."""
    assert looks_random(said) is expected


@pytest.mark.simulated
@given(st.integers(0, 2 * NAMED_MIN), st.sampled_from(["tiny", "tiny-v2"]))
def test_another_model_is_wrong_only_after_enough_right_names(right: int, first: str) -> None:
    """A server that names its model by another name from the start is never blamed."""
    identities = Identities("tiny")
    names = [first, *["tiny"] * right, "other", "other"]
    found = [
        identities.mistake(number, [{"id": "x", "model": name}])
        for number, name in enumerate(names)
    ]
    blamed = [one for one in found if one]
    expected = 2 if first == "tiny" and right + 1 >= NAMED_MIN else 0
    assert len(blamed) == expected


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (whole(""), (Outcome.WRONG, "empty answer")),
        # A model may end at once. And some tokens have no text, so a server may rightly claim 8 tokens without any.
        (whole(choices=[{"text": "", "finish_reason": "stop"}]), (Outcome.OK, "")),
        (whole("", usage={"completion_tokens": 8}), (Outcome.OK, "")),
        (whole(choices=[]), (Outcome.TRUNCATED, "no finish reason")),
        (
            whole(choices=[{"text": "a", "finish_reason": "abort"}]),
            (Outcome.ERROR, "finish reason abort"),
        ),
    ],
)
def test_an_answer_without_a_token_is_empty(body: bytes, expected: tuple[Outcome, str]) -> None:
    """An answer that claims its full length has a token. An answer that says that it was given up is an error."""
    (one,) = got(body)
    assert (one.outcome, one.detail) == expected


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("Transfer-Encoding: chunked", (Outcome.TRUNCATED, "no [DONE]")),
        ("Connection: close", (Outcome.TRUNCATED, "stream cut")),
    ],
)
def test_an_answer_without_a_length_ends_with_its_connection(
    head: str, expected: tuple[Outcome, str]
) -> None:
    """If an answer gives neither its length nor chunks, an early end is a lost connection. It is not held against the graph's honesty."""
    event = 'data: {"id": "x", "choices": [{"text": "a"}]}\n\n'
    body = f"{len(event):x}\r\n{event}\r\n0\r\n\r\n" if "chunked" in head else event
    (request,) = asyncio.run(_ask(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}".encode()))
    assert (request.outcome, request.detail) == expected


async def _ask(answer: bytes) -> Sequence[Request]:
    """Send one streamed request to a server that gives this answer and closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Load(LOOSE, [f"http://127.0.0.1:{port}"], 0.0, []) as load:
        request = Request(0, Group("steady"), stream=True, intended_s=0.0)
        await load._attempt(request)
    return [request]


@in_loop
async def test_a_stream_that_is_cut_properly_breaks_honest_alone(tmp_path: Path) -> None:
    """The planted bug ends streams as if they were complete. Nothing else is wrong in its run."""
    bug = planted()["cut_short"]
    run = await run_live(bug.spec, bug.plan, tmp_path)
    assert {one.promise for one in run.verdict.violations} == {"honest"}

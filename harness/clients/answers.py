"""Make the prompts and bodies of requests, and check the answers to them.

A prompt follows from the load's seed and the request's number alone, so it can be computed again. If the graph file names an oracle, the
answer is compared with the right text, token by token. Without an oracle only the protocol can be checked: one id in a stream, a finish
reason, `[DONE]`, some text, and the number of tokens that the answer claims. `identity` checks whether it belongs to another request.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from graphquake.harness.clients.identity import Identities
from graphquake.harness.errors import InputError
from graphquake.harness.history.request import (
    ERROR_EVENT,
    Outcome,
    Request,
)
from graphquake.harness.spec.functions import described, import_function
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.load import LoadSpec

Oracle: TypeAlias = Callable[[str, int], str]

MESSAGE_MAX: Final = 200
ORACLE_KEY: Final = "promises.answers.oracle"
_ERROR_STATUSES: Final = range(400, 600)
# The statuses that reject a request because of the request itself.
REJECTING: Final = range(400, 500)
_REJECTIONS: Final = frozenset(f"{ERROR_EVENT} {status}" for status in REJECTING)
# The finish reasons by which an answer says that it failed. An oracle still compares what came, because the status was 200.
_FAILED: Final = frozenset({"abort", "aborted", "cancelled", "canceled"})
_HEX_TO_LETTERS: Final = str.maketrans("0123456789", "ghijklmnop")


@dataclass(frozen=True, slots=True)
class Got:
    """The result of checking one answer.

    Attributes:
        outcome: the outcome of the request.
        detail: the reason for the outcome, e.g. `wrong tokens`. Empty for a right answer.
        message: a description of the mistake in the answer, shortened, for a reader.
        tokens: the number of tokens in the answer, or 0 if it is not known.
    """

    outcome: Outcome
    detail: str = ""
    message: str = ""
    tokens: int = 0


def find_oracle(spec: GraphSpec) -> Oracle | None:
    """Import the oracle: the function that returns the right answer to a prompt. None if the graph file names no oracle.

    Raises:
        InputError: if it can't be imported, or can't be called with a prompt and a number of tokens. The oracle that is returned raises an
            InputError as well, if the user's function raises anything or does not return a text.
    """
    name = spec.promises.oracle
    if name == "none":
        return None
    right = import_function(spec.path, ORACLE_KEY, name, ("prompt", "max_tokens"))

    def oracle(prompt: str, max_tokens: int) -> str:
        try:
            answer = right(prompt, max_tokens)
        except Exception as error:  # noqa: BLE001 - the user's function can raise anything
            fault = f"raised {described(error)}"
        else:
            if isinstance(answer, str):
                return answer
            fault = f"returned {type(answer).__name__}, expected str, the right answer"
        call = f"{name}({prompt!r}, {max_tokens})"
        raise InputError(f"{spec.path.name}: {ORACLE_KEY}: {call} {fault}")

    return oracle


def prompt_of(load: LoadSpec, number: int, *, too_long: bool = False) -> str:
    """Return the prompt of the request with this number: lower-case letters. To a byte-level tokenizer each is a token.

    It has `prompt_tokens` letters, or `too_long_tokens` if it is to be too long. Other tokenizers may join some letters into one token.
    """
    tokens = load.too_long_tokens if too_long else load.prompt_tokens
    digest = hashlib.shake_256(f"{load.seed}/{number}".encode()).hexdigest((tokens + 1) // 2)
    return digest[:tokens].translate(_HEX_TO_LETTERS)


def body_of(load: LoadSpec, number: int, *, stream: bool, too_long: bool = False) -> dict[str, Any]:
    """Return the body of the request with this number, before it is written as JSON. If `stream` is true, it asks for a streamed answer."""
    prompt = prompt_of(load, number, too_long=too_long)
    body: dict[str, Any] = {"model": load.model, "max_tokens": load.max_tokens, "temperature": 0}
    if load.api == "chat":
        body["messages"] = [{"role": "user", "content": prompt}]
    else:
        body["prompt"] = prompt
    return body | {"stream": True} if stream else body


def bytes_of(load: LoadSpec, request: Request) -> bytes:
    """Return the bytes of a request's body. If the request is malformed, its number decides in which of four ways."""
    too_long = request.manner == "asks too much"
    body = body_of(load, request.number, stream=request.stream, too_long=too_long)
    prompt = "messages" if load.api == "chat" else "prompt"
    text = json.dumps(body)
    if request.manner == "malformed":
        malformed = (
            text[:-2],
            json.dumps(body | {"max_tokens": "many"}),
            json.dumps(body | {prompt: {"text": 1}}),
            json.dumps({name: value for name, value in body.items() if name != prompt}),
        )
        text = malformed[request.number % len(malformed)]
    return text.encode()


class Checker:
    """Checks the answers of one graph, against the oracle if the graph file names one."""

    def __init__(self, spec: GraphSpec) -> None:
        self._load = spec.load
        self._oracle = find_oracle(spec)
        self._identities = Identities(spec.load.model)

    def check_stream(self, number: int, body: bytes) -> Got:
        """Check a streamed answer whose connection did not break.

        Args:
            number: the number of the request. Its prompt, and so the right answer, follow from it.
            body: the whole event stream.
        """
        payloads = [line[5:].strip() for line in body.split(b"\n") if line.startswith(b"data:")]
        done = bool(payloads) and payloads[-1] == b"[DONE]"
        try:
            # All chunks are parsed in one call, because one call for each chunk takes three times as long.
            chunks = json.loads(b"[" + b",".join(payloads[: -1 if done else None]) + b"]")
        except ValueError:
            return Got(Outcome.TRUNCATED, "no JSON", _short(body))
        for chunk in chunks:
            if error := chunk.get("error"):
                return Got(Outcome.ERROR, _event_class(error), _short(error))
        if not done:
            return Got(Outcome.TRUNCATED, "no [DONE]", f"{len(chunks)} chunks", len(chunks))
        return self._check(number, chunks)

    def check_whole(self, number: int, body: bytes) -> Got:
        """Check the body of an answer that was not streamed. The arguments are those of `check_stream`."""
        try:
            answer = json.loads(body)
        except ValueError:
            return Got(Outcome.TRUNCATED, "no JSON", _short(body))
        if "error" in answer or "choices" not in answer:
            return Got(Outcome.ERROR, "error body", _short(answer))
        return self._check(number, [answer])

    def check_refused(self, request: Request, got: Got) -> Got:
        """Check the answer to a request that must be refused. `got` is the result of the other checks.

        An error within a stream refuses the request, if it names a status 4xx. Every other complete answer is wrong.
        """
        if got.outcome in (Outcome.OK, Outcome.WRONG):
            if request.manner == "malformed":
                what, detail = "a malformed request", "malformed request answered"
            else:
                what, detail = (
                    f"a prompt of {self._load.too_long_tokens} tokens",
                    "too long prompt answered",
                )
            said = f"{what} got an answer, expected a status 4xx"
            return Got(Outcome.WRONG, detail, said, got.tokens)
        if got.outcome == Outcome.ERROR and got.detail in _REJECTIONS:
            return replace(got, outcome=Outcome.REJECTED)
        return got

    def _check(self, number: int, chunks: Sequence[dict[str, Any]]) -> Got:
        choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
        text = "".join(_text(choice) for choice in choices)
        tokens = _claimed_tokens(chunks)
        finish = next((c["finish_reason"] for c in choices if c.get("finish_reason")), None)
        if finish is None:
            return Got(Outcome.TRUNCATED, "no finish reason", _short(text), tokens or 0)
        if finish == "error":
            return Got(Outcome.ERROR, "finish reason error", _short(text), tokens or 0)
        if finish in _FAILED and self._oracle is None:
            return Got(Outcome.ERROR, f"finish reason {finish}", _short(text), tokens or 0)
        ids = {chunk["id"] for chunk in chunks if chunk.get("id")}
        if len(ids) > 1:
            return Got(Outcome.WRONG, "mixed ids", f"one stream had {len(ids)} ids", tokens or 0)
        if mistake := self._identities.mistake(number, chunks):
            return Got(Outcome.WRONG, *mistake, tokens or 0)
        if self._oracle is not None:
            return self._against_oracle(self._oracle, number, text)
        return self._by_length(choices, finish, text, tokens)

    def _by_length(
        self, choices: Sequence[dict[str, Any]], finish: str, text: str, tokens: int | None
    ) -> Got:
        """Check the length of an answer whose right text is not known. A model may end early by itself: `finish` is then `stop`."""
        most = self._load.max_tokens
        if tokens is not None and (tokens > most or (finish == "length" and tokens != most)):
            said = f"finish reason {finish} with {tokens} tokens, max_tokens {most}"
            return Got(Outcome.WRONG, "wrong length", said, tokens)
        # Some tokens have no text. So an answer without text is wrong only if it had no room for tokens either.
        if finish == "length" and not text and tokens is None and len(choices) <= 1:
            return Got(Outcome.WRONG, "empty answer", f"finish reason {finish} without a token", 0)
        return Got(Outcome.OK, tokens=tokens if tokens is not None else len(choices))

    def _against_oracle(self, oracle: Oracle, number: int, text: str) -> Got:
        right = oracle(prompt_of(self._load, number), self._load.max_tokens)
        if text == right:
            return Got(Outcome.OK, tokens=len(text))
        at = next((i for i, (a, b) in enumerate(zip(text, right, strict=False)) if a != b), None)
        if at is None:
            detail = "tokens lost" if len(text) < len(right) else "too many tokens"
            return Got(Outcome.WRONG, detail, f"got {len(text)} of {len(right)} tokens", len(text))
        said = (
            f'differs from token {at} on: got "{text[at : at + 8]}", right "{right[at : at + 8]}"'
        )
        return Got(Outcome.WRONG, "wrong tokens", said, len(text))


def _text(choice: dict[str, Any]) -> str:
    if "text" in choice:
        return choice["text"] or ""
    part = choice.get("delta") or choice.get("message") or {}
    return part.get("content") or ""


def _claimed_tokens(chunks: Sequence[dict[str, Any]]) -> int | None:
    usage = next((chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage")), None)
    return usage.get("completion_tokens") if usage else None


def _event_class(error: object) -> str:
    """Return `error event`, followed by the HTTP status that the event names, if it names one, e.g. `error event 503`.

    The stream began with status 200 before the error happened, so only the event can name another status.
    """
    status = error.get("code") if isinstance(error, dict) else None
    named = isinstance(status, int) and status in _ERROR_STATUSES
    return f"{ERROR_EVENT} {status}" if named else ERROR_EVENT


def _short(what: object) -> str:
    text = what.decode("utf-8", "replace") if isinstance(what, bytes) else what
    text = text if isinstance(text, str) else json.dumps(text)
    return " ".join(text.split())[:MESSAGE_MAX]

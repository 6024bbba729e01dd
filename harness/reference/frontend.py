"""The frontend: answers requests of OpenAI's API with the help of processors.

The frontend limits the number of its requests in flight. It refuses a request beyond that limit (HTTP 429), a request that cannot be served
now (503), and an invalid request (400). If a processor dies in the middle of an answer, another processor continues. The text so far is
then part of its prompt. If a client leaves, all work for its request is cancelled.

Run this file as a module.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, ClassVar, Final

from aiohttp import web

from graphquake.harness.reference.membership import Instance
from graphquake.harness.reference.node import Node, main
from graphquake.harness.reference.wire import Call, Gone, Message, call

SILENCE_MAX_S: Final = 1.5
DEADLINE_S: Final = 30.0
TOKENS_MAX: Final = 2048
PROMPT_MAX: Final = 2048
BODY_MAX_BYTES: Final = 1 << 20
RETRY_S: Final = 0.02
# The time for which a request keeps calling processors that do not answer, before it is refused. It starts anew with each token.
NO_INSTANCE_MAX_S: Final = 3.0
SERVING_ROLES: Final = ("processor", "prefill", "decode", "agg")
_STATUS: Final = {"busy": 429, "unavailable": 503, "deadline": 504}


class Refused(Exception):
    """The frontend refuses a request. `status` is the HTTP status of the answer, and the text gives the reason."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Frontend(Node):
    """Speaks HTTP to clients.

    Attributes:
        finish_max_s: how long `close` waits for the requests in flight, in seconds.
    """

    role = "frontend"
    finish_max_s: ClassVar[float] = 0.1

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.model: str = arguments.model
        self._max_in_flight: int = arguments.max_in_flight
        self._turn = itertools.count()
        self._runner: web.AppRunner

    @classmethod
    def options(cls, parser: argparse.ArgumentParser) -> None:
        """See `Node.options`."""
        parser.add_argument("--model", default="reference")
        parser.add_argument("--max-in-flight", type=int, default=64, help="requests; more: 429")

    async def listen(self) -> None:
        """See `Node.listen`."""
        app = web.Application(client_max_size=BODY_MAX_BYTES)
        app.add_routes(self.pages())
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=self.finish_max_s
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, backlog=512).start()

    def pages(self) -> list[web.RouteDef]:
        """Return the paths that the server answers, and their methods."""
        return [
            web.post("/v1/completions", self.completions),
            web.post("/v1/chat/completions", self.chat),
            web.get("/v1/models", self.models),
            web.get("/health", self.show_health),
            web.get("/metrics", self.show_metrics),
        ]

    def deafen(self) -> None:
        """See `Node.deafen`. It has no effect here: `close` stops accepting calls and closes the connections."""

    async def close(self) -> None:
        """See `Node.close`."""
        await self._runner.cleanup()

    def health(self) -> str:
        """See `Node.health`. The frontend can serve if a processor is listed, and all workers that a request needs."""
        roles = {one.role for one in self.listed()}
        if "processor" not in roles:
            return "no processor is listed"
        if "agg" in roles or {"prefill", "decode"} <= roles:
            return ""
        return "workers are missing"

    def listed(self) -> list[Instance]:
        """Return the listed instances of all roles that a request may need."""
        return [one for role in SERVING_ROLES for one in self.directory.of_role(role)]

    # ---------------------------------------------------------------------------------------------------------- pages

    async def show_health(self, request: web.Request) -> web.Response:
        """Answer `GET /health`: whether the frontend can serve (200 or 503), and which instances it knows from the registry."""
        del request
        status, why = self._health()
        listed = [one.said for one in self.listed()]
        return web.json_response({"status": why.strip(), "instances": listed}, status=status)

    async def show_metrics(self, request: web.Request) -> web.Response:
        """Answer `GET /metrics` with the gauges of this process, as Prometheus text."""
        del request
        return web.Response(text=self._metrics()[1])

    async def models(self, request: web.Request) -> web.Response:
        """Answer `GET /v1/models` with the list of models. The list is empty while the frontend cannot serve."""
        del request
        data = [] if self.health() else [{"id": self.model, "object": "model"}]
        return web.json_response({"object": "list", "data": data})

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Answer `POST /v1/completions` of OpenAI's API."""
        return await self.answer(request, "text_completion")

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer `POST /v1/chat/completions` of OpenAI's API."""
        return await self.answer(request, "chat.completion")

    # -------------------------------------------------------------------------------------------------------- answers

    async def answer(self, request: web.Request, kind: str) -> web.StreamResponse:
        """Answer one request, as a stream if its body asks for one. A refused request gets an error status.

        Args:
            request: the request. Its body is read here.
            kind: the form of the answer in OpenAI's API: `text_completion` or `chat.completion`.
        """
        if self.draining:
            return _error(503, "draining")
        if self.in_flight >= self._max_in_flight:
            return _error(429, "too many requests")
        self.enter()
        try:
            body = await _body_of(request)
            prompt, count = _prompt_of(body, kind), _count_of(body)
            answer = _Answer(kind, self.model)
            async with aclosing(self.generate(prompt, count)) as texts:
                if body.get("stream"):
                    return await self.stream(request, texts, answer)
                text = "".join([part async for part in texts])
            usage = {"prompt_tokens": len(prompt), "completion_tokens": len(text)}
            return web.json_response(answer.whole(text) | {"usage": usage})
        except Refused as refused:
            return _error(refused.status, str(refused))
        finally:
            self.leave()

    async def stream(
        self, request: web.Request, texts: AsyncGenerator[str], answer: _Answer
    ) -> web.StreamResponse:
        """Send one server-sent event for each token. A refusal before the first token is an HTTP status. A later one is an event."""
        first = await anext(texts)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        await response.write(answer.event(first))
        try:
            async for part in texts:
                await response.write(answer.event(part))
            await response.write(answer.event("", finish="length") + b"data: [DONE]\n\n")
        except Refused as refused:
            error = {"error": {"message": str(refused), "code": refused.status}}
            await response.write(f"data: {json.dumps(error)}\n\n".encode())
        await response.write_eof()
        return response

    async def generate(self, prompt: str, count: int) -> AsyncGenerator[str]:
        """Yield the text that follows a prompt, one token at a time. If a processor fails, another processor continues.

        Args:
            prompt: the prompt.
            count: the number of tokens. Each token is one character.

        Raises:
            Refused: if a processor refuses the request, or none continues it within `NO_INSTANCE_MAX_S` or before the deadline.
        """
        until_s = time.monotonic() + DEADLINE_S
        give_up_s = time.monotonic() + NO_INSTANCE_MAX_S
        done = ""
        while len(done) < count:
            message = {
                "do": "generate",
                "prompt": prompt + done,
                "max_tokens": count - len(done),
                "deadline_s": until_s - time.monotonic(),
            }
            try:
                async with aclosing(self.asked(message)) as texts:
                    async for text in texts:
                        done += text
                        give_up_s = time.monotonic() + NO_INSTANCE_MAX_S
                        yield text
            except Gone as gone:
                if time.monotonic() >= min(until_s, give_up_s):
                    raise Refused(503, f"no processor answers: {gone}") from None
                await asyncio.sleep(RETRY_S)

    async def asked(self, message: Message) -> AsyncGenerator[str]:
        """Yield the text of each token that one processor makes for a request.

        Raises:
            Gone: if the processor dies, is silent or shuts down. Another processor may continue.
            Refused: if the processor refuses the request, or no processor is listed.
        """
        processors = self.directory.of_role("processor")
        if not processors:
            raise Refused(503, "no processor is listed")
        opened = await self.reach(processors, message)
        try:
            while True:
                said = await _said(opened)
                if "finish" in said:
                    return
                if "error" in said:
                    if said["error"] == "draining":
                        raise Gone("draining")
                    raise Refused(_STATUS[said["error"]], str(said.get("why", said["error"])))
                yield said["text"]
        finally:
            opened.close()

    async def reach(self, processors: list[Instance], message: Message) -> Call:
        """Call one processor and send it a message. Calls take turns among the processors, and skip those that cannot be reached.

        Raises:
            Gone: if no processor accepts the call.
        """
        turn = next(self._turn)
        gone = Gone("no processor")
        for number in range(len(processors)):
            try:
                chosen = processors[(turn + number) % len(processors)]
                return await call(chosen.address, message)
            except Gone as error:
                gone = error
        raise gone


async def _said(opened: Call) -> Message:
    return (await opened.receive(SILENCE_MAX_S))[0]


class _Answer:
    """The form of the answers to one request, in OpenAI's API."""

    def __init__(self, kind: str, model: str) -> None:
        self._kind = kind
        self._model = model
        self._id = f"gq-{secrets.token_hex(8)}"
        self._created = int(time.time())

    def _with(self, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "choices": [{"index": 0, **choice}],
        }

    def whole(self, text: str) -> dict[str, Any]:
        """Return the JSON form of a whole answer that is not streamed."""
        said: dict[str, Any] = {"text": text}
        if self._kind == "chat.completion":
            said = {"message": {"role": "assistant", "content": text}}
        return self._with(self._kind, said | {"finish_reason": "length"})

    def event(self, text: str, finish: str | None = None) -> bytes:
        """Return the bytes of one server-sent event. `finish` is the reason for the end of the answer, or None before its end."""
        kind, said = self._kind, {"text": text}
        choice: dict[str, Any] = said
        if kind == "chat.completion":
            kind, choice = "chat.completion.chunk", {"delta": {"content": text}}
        chunk = self._with(kind, choice | {"finish_reason": finish})
        return f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n".encode()


def _error(status: int, why: str) -> web.Response:
    return web.json_response({"error": {"message": why, "code": status}}, status=status)


async def _body_of(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        raise Refused(400, "the body is not valid JSON") from None
    if not isinstance(body, dict):
        raise Refused(400, "the body is not a JSON object")
    return body


def _prompt_of(body: dict[str, Any], kind: str) -> str:
    if kind == "chat.completion":
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise Refused(400, "messages: expected a list of at least one")
        prompt = "".join(str(one.get("content", "")) for one in messages if isinstance(one, dict))
    else:
        prompt = body.get("prompt", "")
    if not isinstance(prompt, str) or not prompt.isascii() or not 0 < len(prompt) <= PROMPT_MAX:
        raise Refused(400, f"prompt: expected 1 to {PROMPT_MAX} characters of ASCII")
    return prompt


def _count_of(body: dict[str, Any]) -> int:
    count = body.get("max_tokens", 16)
    if not isinstance(count, int) or not 0 < count <= TOKENS_MAX:
        raise Refused(400, f"max_tokens: expected a whole number from 1 to {TOKENS_MAX}")
    return count


if __name__ == "__main__":
    main(Frontend)

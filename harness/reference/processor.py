"""The processor: turns a prompt into a stream of tokens, even if workers die meanwhile.

The processor tokenizes the prompt. A prefill worker computes the KV and a decode worker continues from that KV, or one `agg` worker does
both. The processor sends each token to the frontend as soon as the token is made. If a worker dies, hangs or refuses, the request migrates:
the tokens so far become part of the prompt of the next attempt. So no token is lost or sent twice. Decoding is greedy, so the text is the
same.

Routing chooses the listed instance that works on the fewest requests of this processor. Equally busy instances take turns. An instance that
failed is avoided for one lease, because the registry lists dead instances for that long. If all listed instances are avoided, routing
chooses among them anyway.

Run this file as a module.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final

from graphquake.harness.reference.membership import LEASE_S, Instance
from graphquake.harness.reference.node import Node, main
from graphquake.harness.reference.wire import Call, Gone, Message, call

# A worker that sends nothing for this time counts as dead. It is the time of four heartbeats, and shorter than the deadline of a client.
SILENCE_MAX_S: Final = 1.0
# The pause between two attempts. It doubles with each failed attempt, up to the maximum. The deadline of the request ends the attempts.
BACKOFF_S: Final = 0.01
BACKOFF_MAX_S: Final = 0.2
# The time that a request waits while no instance of a role is listed, in seconds. A respawned instance is often listed within this time.
NO_INSTANCE_MAX_S: Final = 0.5
AVOID_S: Final = LEASE_S


class Unavailable(Exception):
    """No instance of a role that this request needs is listed."""


class Busy(Exception):
    """The chosen instance refused a request, because it has too many others."""


class Failed(Exception):
    """An attempt at a request failed. Another attempt may succeed."""


class Processor(Node):
    """Tokenizes, routes, retries, migrates."""

    role = "processor"

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self._max_in_flight: int = arguments.max_in_flight
        self._avoided: dict[str, float] = {}
        self._busy: Counter[str] = Counter()
        self._turn = itertools.count()

    @classmethod
    def options(cls, parser: argparse.ArgumentParser) -> None:
        """See `Node.options`."""
        parser.add_argument("--max-in-flight", type=int, default=128, help="requests; more: busy")

    # ---------------------------------------------------------------------------------------------------------- calls

    async def on_call(self, call: Call, message: Message) -> None:
        """See `Node.on_call`."""
        if self.draining:
            await call.send({"error": "draining"})
            return
        if self.in_flight >= self._max_in_flight:
            await call.send({"error": "busy"})
            return
        self.enter()
        try:
            async with asyncio.timeout(message["deadline_s"]):
                prompt = self.tokenize(message["prompt"])
                async with aclosing(self.generate(prompt, message["max_tokens"])) as tokens:
                    async for token in tokens:
                        await call.send({"text": self.detokenize(token)})
            await call.send({"finish": "length"})
        except Unavailable as error:
            await call.send({"error": "unavailable", "why": str(error)})
        except Busy:
            await call.send({"error": "busy"})
        except TimeoutError:
            await call.send({"error": "deadline"})
        finally:
            self.leave()

    def tokenize(self, prompt: str) -> list[int]:
        """Tokenize a prompt: one token a byte."""
        return list(prompt.encode())

    def detokenize(self, token: int) -> str:
        """Return the text of one token."""
        return chr(token)

    # ----------------------------------------------------------------------------------------------------- generating

    async def generate(self, prompt: Sequence[int], count: int) -> AsyncGenerator[int]:
        """Yield the tokens that follow a prompt. After a failed attempt, another attempt continues, without a limit on their number.

        Args:
            prompt: the tokens of the prompt.
            count: the number of tokens to make.

        Raises:
            Unavailable: if no instance of a role is listed that the request needs.
            Busy: if the chosen instance is full, and no token was yielded yet.
        """
        done: list[int] = []
        backoff_s = BACKOFF_S
        while len(done) < count:
            try:
                async with aclosing(self.attempt([*prompt, *done], count - len(done))) as tokens:
                    async for token in tokens:
                        done.append(token)
                        yield token
                        backoff_s = BACKOFF_S
            except Busy:
                if not done:
                    raise
                await asyncio.sleep(backoff_s)
            except Failed:
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    async def attempt(self, tokens: list[int], count: int) -> AsyncGenerator[int]:
        """Yield the tokens of one attempt. If an `agg` worker is listed, one makes all tokens. Otherwise a prefill and a decode worker do.

        Args:
            tokens: the prompt, with the tokens that earlier attempts made.
            count: the number of tokens to make.

        Raises:
            Failed: if a worker fails before the last token.
            Busy, Unavailable: see `generate`.
        """
        if self.directory.of_role("agg"):
            asked = {"do": "generate", "tokens": tokens, "count": count}
            async with aclosing(self.asked("agg", asked, count)) as answers:
                async for said in answers:
                    yield said["token"]
            return
        asked = {"do": "prefill", "tokens": tokens}
        (first,) = [said async for said in self.asked("prefill", asked, 1)]
        yield first["token"]
        if count == 1:
            return
        asked = {**first, "do": "decode", "count": count - 1}
        try:
            async with aclosing(self.asked("decode", asked, count - 1)) as answers:
                async for said in answers:
                    yield said["token"]
        except KvLost:
            self.avoid_address(first["address"])
            raise

    async def asked(self, role: str, message: Message, answers: int) -> AsyncGenerator[Message]:
        """Send a message to one instance of a role, and yield its answers.

        Args:
            role: the role of the instance.
            message: the message.
            answers: the number of answers that the instance has to send.

        Raises:
            Failed: if the instance sends fewer answers, or sends nothing for `SILENCE_MAX_S`.
            Busy: if the instance is full.
        """
        async with self.chosen(role) as instance:
            try:
                opened = await call(instance.address, message)
            except Gone as gone:
                self.avoid(instance)
                raise Failed(str(gone)) from None
            try:
                for _ in range(answers):
                    said = await self.said(opened, instance)
                    yield said
            finally:
                opened.close()

    async def said(self, opened: Call, instance: Instance) -> Message:
        """Return the next answer of an instance. An instance that fails is avoided for a while.

        Raises:
            Failed, Busy: see `asked`.
        """
        try:
            said, _ = await opened.receive(SILENCE_MAX_S)
        except Gone as gone:
            self.avoid(instance)
            raise Failed(f"{instance.name}: {gone}") from None
        match said.get("error"):
            case None:
                return said
            case "full":
                raise Busy
            case "kv":
                self.avoid(instance)
                raise KvLost(said["why"])
            case why:
                self.avoid(instance)
                raise Failed(f"{instance.name}: {why}")

    # -------------------------------------------------------------------------------------------------------- routing

    @asynccontextmanager
    async def chosen(self, role: str) -> AsyncIterator[Instance]:
        """Choose an instance of a role. Inside the `with` block, the instance counts as busy with one request more.

        Raises:
            Unavailable: see `choose`.
        """
        instance = await self.choose(role)
        self._busy[instance.id] += 1
        try:
            yield instance
        finally:
            self._busy[instance.id] -= 1
            if not self._busy[instance.id]:
                del self._busy[instance.id]

    async def choose(self, role: str) -> Instance:
        """Choose the instance of a role that gets the next request: the least busy one, as the module describes.

        Raises:
            Unavailable: if no instance of the role is listed for `NO_INSTANCE_MAX_S`.
        """
        until_s = time.monotonic() + NO_INSTANCE_MAX_S
        while not (listed := self.directory.of_role(role)):
            if time.monotonic() >= until_s:
                raise Unavailable(f"no {role} is listed")
            await asyncio.sleep(BACKOFF_S)
        able = [one for one in listed if not self.is_avoided(one)] or listed
        turn = next(self._turn)
        ordered = able[turn % len(able) :] + able[: turn % len(able)]
        return min(ordered, key=lambda one: self._busy[one.id])

    def avoid(self, instance: Instance) -> None:
        """Avoid an instance that failed, for `AVOID_S`."""
        self._avoided[instance.id] = time.monotonic() + AVOID_S

    def avoid_address(self, address: str) -> None:
        """Avoid the prefill worker that is listed with this address, for `AVOID_S`."""
        for one in self.directory.of_role("prefill"):
            if one.address == address:
                self.avoid(one)

    def is_avoided(self, instance: Instance) -> bool:
        """True if the instance failed less than `AVOID_S` ago."""
        return self._avoided.get(instance.id, 0.0) > time.monotonic()

    async def work(self) -> None:
        """See `Node.work`: forget the instances that need not be avoided any more."""
        while True:
            await asyncio.sleep(AVOID_S)
            now_s = time.monotonic()
            self._avoided = {key: until for key, until in self._avoided.items() if until > now_s}


class KvLost(Failed):
    """A decode worker could not fetch the KV from the prefill worker. Either may be the cause, or their link, so both are avoided."""


if __name__ == "__main__":
    main(Processor)

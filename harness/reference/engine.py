"""The engine of a worker: its ranks, each in a separate process, and the batch that they work on.

Batching is continuous. A sequence joins the batch at the next step. It leaves with its last token, or as soon as its client is gone.
At most `max_seqs` sequences are in the batch and as many wait. Further ones are refused. If a rank dies, the engine is lost, and all
waiting requests fail at once. An idle engine uses no CPU.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Self

from graphquake.harness.reference import rank  # first: it says how many threads numpy may have

# isort: split
from graphquake.harness.reference import model
from graphquake.harness.reference.forked import Forked, Process
from graphquake.harness.reference.wire import Call, Gone, Message

START_MAX_S: Final = 60.0
END_MAX_S: Final = 2.0
RANK_PROGRAM: Final = ("-m", "graphquake.harness.reference.rank")


class EngineError(Exception):
    """The engine failed, or has ended."""


class EngineFull(Exception):
    """The batch is full, and so is the queue."""


@dataclass(slots=True, eq=False)
class Decoding:
    """One sequence that is decoded.

    Attributes:
        kv: of all positions before `token`. It is handed over when the sequence gets its slot.
        token: the last one, whose KV is not there yet.
        left: how many tokens are still wanted.
        out: the tokens made so far. An error ends it.
    """

    kv: bytes
    token: int
    left: int
    position: int
    slot: int = -1
    out: asyncio.Queue[int | EngineError] = field(default_factory=asyncio.Queue)


@dataclass(slots=True, eq=False)
class Prompt:
    """A prompt that waits for its prefill."""

    tokens: list[int]
    done: asyncio.Future[tuple[int, bytes]]


class Engine:
    """See the module. Made by `start`.

    Attributes:
        lost: set as soon as a rank is dead.
        pids: of the ranks.
        rank_kind: what runs as a rank.
    """

    rank_kind: ClassVar[type[rank.Rank]] = rank.Rank

    def __init__(self, max_seqs: int, step_s: float) -> None:
        self._step_s = step_s
        self._max_seqs = max_seqs
        self._ranks: list[Process] = []
        self._controls: list[Call] = []
        self._prompts: deque[Prompt] = deque()
        self._waiting: deque[Decoding] = deque()
        self._batch: list[Decoding] = []
        self._free = list(range(max_seqs))
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.lost = asyncio.Event()
        self.pids: list[int] = []

    @classmethod
    async def start(
        cls,
        *,
        tp: int = 1,
        backend: str = "numpy",
        devices: Sequence[str] | None = None,
        seed: int = 1,
        max_seqs: int = 64,
        step_s: float = 0.005,
    ) -> Self:
        """Start the ranks and wait until they are ready.

        Args:
            tp: how many.
            backend: `numpy`, `torch`, or `auto`: torch if CUDA_VISIBLE_DEVICES names a GPU.
        devices: of each rank, for torch. A single one is used for all ranks. `cuda` is one GPU after the other, in turn.
            step_s: the least time that a token takes.

        Raises:
            EngineError: if a rank does not come up. It says why.
        """
        if model.HEADS % tp:
            raise EngineError(f"tp: found {tp}, expected a divisor of {model.HEADS}")
        self = cls(max_seqs, step_s)
        if backend == "auto":
            backend = "torch" if os.environ.get("CUDA_VISIBLE_DEVICES") else "numpy"
        chosen = list(devices or (["cuda"] if backend == "torch" else ["cpu"]))
        try:
            async with asyncio.timeout(START_MAX_S):
                await self._launch(tp, backend, (chosen * tp)[:tp], seed)
                for control in self._controls:
                    said, _ = await control.receive()
                    if "error" in said:
                        raise EngineError(said["error"])
        except (Gone, TimeoutError) as error:
            await self.close()
            raise EngineError(f"a rank did not come up: {error}") from None
        except BaseException:
            await self.close()
            raise
        self._tasks = [asyncio.ensure_future(self._watch(one)) for one in self._ranks]
        self._tasks.append(asyncio.ensure_future(self._run()))
        return self

    async def _launch(self, tp: int, backend: str, devices: list[str], seed: int) -> None:
        pairs = [socket.socketpair() for _ in range(tp - 1)]
        peers = [[ours for ours, _ in pairs], *([theirs] for _, theirs in pairs)]
        for number, device in enumerate(devices):
            ours, theirs = socket.socketpair()
            passed = [theirs, *peers[number]]
            numbers = [one.fileno() for one in passed]
            for one in passed:
                one.set_inheritable(True)
            arguments = [
                "--rank", str(number), "--tp", str(tp), "--backend", backend, "--device", device,
                "--seed", str(seed), "--slots", str(self._max_seqs),
                "--control", str(numbers[0]), "--peers", ",".join(map(str, numbers[1:])),
            ]  # fmt: skip
            process = await self._start_rank(arguments, numbers)
            for one in passed:
                one.close()
            self._ranks.append(process)
            self.pids.append(process.pid)
            reader, writer = await asyncio.open_connection(sock=ours, limit=model.CONTEXT_MAX << 10)
            self._controls.append(Call(reader, writer))

    async def _start_rank(self, arguments: list[str], fds: list[int]) -> Process:
        if "torch" in sys.modules or len(os.listdir("/proc/self/task")) == 1:
            # A forked copy has the modules that a rank needs. Importing them again takes half a second, with torch several.
            # Threads would not survive the fork.
            return Forked.start(lambda: rank.main(self.rank_kind, arguments), fds)
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *RANK_PROGRAM,
            *arguments,
            pass_fds=fds,
            stdin=asyncio.subprocess.DEVNULL,
        )

    async def close(self) -> None:
        """End the ranks. Running and waiting requests fail."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._lose()
        for control in self._controls:
            control.close()
        for process in self._ranks:
            try:
                await asyncio.wait_for(process.wait(), END_MAX_S)
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _watch(self, process: Process) -> None:
        await process.wait()
        self._lose()

    def _lose(self) -> None:
        self.lost.set()
        self._work.set()
        for sequence in (*self._batch, *self._waiting):
            sequence.out.put_nowait(EngineError("the engine lost a rank"))
        for prompt in self._prompts:
            if not prompt.done.done():
                prompt.done.set_exception(EngineError("the engine lost a rank"))
        self._batch.clear()
        self._waiting.clear()
        self._prompts.clear()

    # ---------------------------------------------------------------------------------------------------- requests

    @property
    def running(self) -> int:
        """The number of sequences in the batch."""
        return len(self._batch)

    @property
    def waiting(self) -> int:
        """The number of sequences and prompts that wait."""
        return len(self._waiting) + len(self._prompts)

    async def prefill(self, tokens: list[int]) -> tuple[int, bytes]:
        """The token that follows a prompt, and the prompt's KV.

        Raises:
            EngineError: if the engine is lost.
            EngineFull: if too many wait.
        """
        self._check(len(self._prompts))
        prompt = Prompt(tokens, asyncio.get_running_loop().create_future())
        self._prompts.append(prompt)
        self._work.set()
        return await prompt.done

    async def decode(self, kv: bytes, token: int, count: int) -> AsyncGenerator[int]:
        """The tokens that follow.

        Args:
            kv: of all positions before `token`.
            token: the last one.
            count: how many.

        Raises:
            EngineError: if the engine is lost.
            EngineFull: if too many wait.
        """
        self._check(len(self._batch) + len(self._waiting))
        position, rest = divmod(len(kv), model.POSITION_BYTES)
        if rest:
            raise EngineError(f"KV: found {len(kv)} bytes, expected whole positions")
        sequence = Decoding(kv, token, count, position)
        self._waiting.append(sequence)
        self._work.set()
        try:
            for _ in range(count):
                made = await sequence.out.get()
                if isinstance(made, EngineError):
                    raise made
                yield made
        finally:
            self._drop(sequence)

    def _check(self, asked: int) -> None:
        if self.lost.is_set():
            raise EngineError("the engine lost a rank")
        if asked >= 2 * self._max_seqs:
            raise EngineFull

    # ------------------------------------------------------------------------------------------------------ the batch

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._work.clear()
                begun_s = loop.time()
                await self._prefill_next()
                await self._admit()
                if self._batch:
                    await self._step()
                    # Requests that arrive meanwhile wait for the next step, as in a real engine.
                    await asyncio.sleep(max(0.0, begun_s + self._step_s - loop.time()))
                elif not self._prompts and not self._waiting:
                    await self._work.wait()
        except Gone:
            self._lose()

    async def _prefill_next(self) -> None:
        while self._prompts and self._prompts[0].done.done():
            self._prompts.popleft()  # the caller has gone
        if not self._prompts:
            return
        prompt = self._prompts[0]
        answers = await self._ask({"do": "prefill", "tokens": prompt.tokens})
        if self._prompts and self._prompts[0] is prompt:
            self._prompts.popleft()
        if not prompt.done.done():
            kv = model.join([share for _, share in answers])
            prompt.done.set_result((answers[0][0]["token"], kv))

    async def _admit(self) -> None:
        """Give free slots to waiting sequences."""
        while self._waiting and self._free:
            sequence = self._waiting.popleft()
            sequence.slot = self._free.pop()
            self._batch.append(sequence)
            shares = model.split(sequence.kv, len(self._controls))
            sequence.kv = b""
            for control, share in zip(self._controls, shares, strict=True):
                await control.send({"do": "load", "slot": sequence.slot}, share)

    async def _step(self) -> None:
        """Make one token for each sequence of the batch."""
        batch = list(self._batch)
        ((said, _), *_) = await self._ask(
            {
                "do": "step",
                "slots": [one.slot for one in batch],
                "tokens": [one.token for one in batch],
                "positions": [one.position for one in batch],
            },
        )
        for sequence, token in zip(batch, said["tokens"], strict=True):
            sequence.token, sequence.position = token, sequence.position + 1
            sequence.left -= 1
            sequence.out.put_nowait(token)
            if not sequence.left:
                self._drop(sequence)

    async def _ask(self, message: Message) -> list[tuple[Message, bytes]]:
        """Send one command to all ranks, and return their answers."""
        for control in self._controls:
            await control.send(message)
        return [await control.receive() for control in self._controls]

    def _drop(self, sequence: Decoding) -> None:
        """End a sequence and free its slot. Safe to call twice."""
        if sequence in self._batch:
            self._batch.remove(sequence)
            self._free.append(sequence.slot)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)

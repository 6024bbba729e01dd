"""The engine of a worker: its ranks, each in a separate process, and the batch that they work on.

Batching is continuous. A sequence joins the batch at the next step. It leaves the batch after its last token, or as soon as its client is
gone. At most `max_seqs` sequences are in the batch, and at most `max_seqs` more wait for it. At most twice `max_seqs` prompts wait for
their prefill. The engine refuses further requests. If a rank dies, the engine is lost, and all running and waiting requests fail at once.
If the ranks do not answer for `STUCK_S`, e.g. because one is frozen, these requests fail as well, and new ones are refused until the ranks
answer again. An idle engine uses no CPU.
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

from graphquake.harness.reference import rank  # first: it limits the threads of numpy

# isort: split
from graphquake.harness.reference import model
from graphquake.harness.reference.forked import Forked, Process
from graphquake.harness.reference.wire import Call, Gone, Message

START_MAX_S: Final = 60.0
END_MAX_S: Final = 2.0
# A step takes milliseconds. A busy host may take longer, but not as long as this, in seconds.
STUCK_S: Final = 1.0
STUCK: Final = "the engine does not answer"
LOST: Final = "the engine lost a rank"
RANK_PROGRAM: Final = ("-m", "graphquake.harness.reference.rank")


class EngineError(Exception):
    """The engine could not start, has lost a rank, is stuck, has been closed, or got a KV of an impossible size."""


class EngineFull(Exception):
    """The engine refuses a request, because too many others already run or wait."""


@dataclass(slots=True, eq=False)
class Decoding:
    """One sequence that is decoded.

    Attributes:
        kv: the KV of all positions before `token`. It is empty after the ranks have got it.
        token: the last token of the sequence. Its KV is not computed yet.
        left: the number of tokens that are still to be made.
        position: the position of `token` in the sequence, from 0.
        slot: the place of the sequence in the cache of each rank. -1 before the sequence is in the batch.
        out: the tokens that were made and not taken yet. If the engine is lost, an error follows as the last item.
    """

    kv: bytes
    token: int
    left: int
    position: int
    slot: int = -1
    out: asyncio.Queue[int | EngineError] = field(default_factory=asyncio.Queue)


@dataclass(slots=True, eq=False)
class Prompt:
    """A prompt that waits for its prefill. `done` gets the token that follows the prompt, and the KV of the prompt."""

    tokens: list[int]
    done: asyncio.Future[tuple[int, bytes]]


class Engine:
    """The engine of one worker (see the module). `start` makes it.

    Attributes:
        lost: set as soon as a rank is dead, or the engine is closed.
        pids: the process ids of the ranks.
        rank_kind: the class whose `run` is the work of a forked rank. Planted bugs replace it.
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
        # The loop time at which the ranks were given their present work, or None while they have none.
        self._asked_s: float | None = None
        self._asked = asyncio.Event()
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
            tp: the number of ranks.
            backend: `numpy`, `torch`, or `auto`. `auto` means torch if CUDA_VISIBLE_DEVICES names a GPU, else numpy.
            devices: the torch device of each rank, e.g. `cpu` or `cuda:1`. If there are fewer devices than ranks, they are used in turn.
                `cuda` spreads the ranks over all GPUs.
            seed: the seed of the model's weights.
            max_seqs: the number of sequences that fit into the batch.
            step_s: the least time of a step, in seconds. Each step makes one token for each sequence.

        Raises:
            EngineError: if `tp` does not divide the number of heads, or a rank does not start. The text gives the reason.
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
        self._tasks += [
            asyncio.ensure_future(self._run()),
            asyncio.ensure_future(self._watch_time()),
        ]
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
            # A forked child has the modules that a rank needs. Importing them again takes half a second, and several seconds with torch.
            # Without torch, this process is forked only if it has a single thread, because other threads do not survive a fork.
            return Forked.start(lambda: rank.main(self.rank_kind, arguments), fds)
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *RANK_PROGRAM,
            *arguments,
            pass_fds=fds,
            stdin=asyncio.subprocess.DEVNULL,
        )

    async def close(self) -> None:
        """End the ranks, with SIGKILL if they do not exit within `END_MAX_S`. Running and waiting requests fail."""
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

    async def _watch_time(self) -> None:
        """Fail the requests of an engine that is stuck, until the ranks answer again."""
        while True:
            await self._asked.wait()
            await asyncio.sleep(STUCK_S / 4)
            if self.is_stuck:
                self._fail(STUCK)

    @property
    def is_stuck(self) -> bool:
        """True if the ranks have not done a piece of work within `STUCK_S`."""
        now_s = asyncio.get_running_loop().time()
        return self._asked_s is not None and now_s - self._asked_s > STUCK_S

    def _fail(self, why: str) -> None:
        """Let all running and waiting requests fail."""
        for sequence in (*self._batch, *self._waiting):
            sequence.out.put_nowait(EngineError(why))
        for prompt in self._prompts:
            if not prompt.done.done():
                prompt.done.set_exception(EngineError(why))

    def _lose(self) -> None:
        self.lost.set()
        self._work.set()
        self._fail(LOST)
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
        """The number of sequences that wait for the batch, plus the number of prompts that wait for their prefill."""
        return len(self._waiting) + len(self._prompts)

    async def prefill(self, tokens: list[int]) -> tuple[int, bytes]:
        """Return the token that follows a prompt, and the KV of the prompt.

        Raises:
            EngineError: if the engine is lost or stuck.
            EngineFull: if twice `max_seqs` prompts wait already.
        """
        self._check(len(self._prompts))
        prompt = Prompt(tokens, asyncio.get_running_loop().create_future())
        self._prompts.append(prompt)
        self._work.set()
        return await prompt.done

    async def decode(self, kv: bytes, token: int, count: int) -> AsyncGenerator[int]:
        """Yield the tokens that follow a sequence, as they are made.

        Args:
            kv: the KV of all positions before `token`.
            token: the last token of the sequence. It is not yielded.
            count: the number of tokens to make.

        Raises:
            EngineError: if the engine is lost or stuck, or `kv` is not a whole number of positions.
            EngineFull: if twice `max_seqs` sequences run or wait already.
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
            raise EngineError(LOST)
        if self.is_stuck:
            raise EngineError(STUCK)
        if asked >= 2 * self._max_seqs:
            raise EngineFull

    # ------------------------------------------------------------------------------------------------------ the batch

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._work.clear()
                begun_s = self._asked_s = loop.time()
                self._asked.set()
                await self._prefill_next()
                await self._admit()
                stepped = bool(self._batch)
                if stepped:
                    await self._step()
                self._asked_s = None
                self._asked.clear()
                if stepped:
                    # Requests that arrive during a step wait for the next step, as in a real engine.
                    await asyncio.sleep(max(0.0, begun_s + self._step_s - loop.time()))
                elif not self._prompts and not self._waiting:
                    await self._work.wait()
        except Gone:
            self._lose()

    async def _prefill_next(self) -> None:
        while self._prompts and self._prompts[0].done.done():
            self._prompts.popleft()  # the caller does not wait any more
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
        """Move waiting sequences into the batch while slots are free, and load their KV into the ranks."""
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
        """Take a sequence out of the batch or the queue, and free its place in the batch. Safe to call twice."""
        if sequence in self._batch:
            self._batch.remove(sequence)
            self._free.append(sequence.slot)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)

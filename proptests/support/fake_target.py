"""A target in memory: two workers that are only flags, and a web server in the test's own event loop. It starts no process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from graphquake.harness.errors import GraphError
from graphquake.harness.history.events import BecameReady, Died, Measured, ReplicaEvent, Spawned
from graphquake.harness.spec.graph import GraphSpec, load_graph
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import NetworkFault, Squeezable, too_late
from graphquake.harness.spec.steps.scope import PROCESS, Scope
from graphquake.harness.targets.no_pods import NoPods
from graphquake.harness.targets.target import Landed, Leak, View, Work

# The longest prompt, in letters.
CONTEXT = 100
GRAPH = """
graph = "fake"
serves = "front and worker"

[roles.front]
command = "none"
entry = "http://127.0.0.1:{port.http}"

[roles.worker]
replicas = 2
command = "none"

[load]
model = "fake"
rate_per_s = 40
max_tokens = 4

[promises]
answers = { oracle = "support.fake_target:expected" }
error_window = { window_s = 0.2 }
"""


def expected(prompt: str, max_tokens: int) -> str:
    """The right answer to every prompt."""
    del prompt
    return "four"[:max_tokens]


def fake_spec(folder: Path) -> GraphSpec:
    """The graph file of the fake target, read."""
    path = folder / "fake.toml"
    path.write_text(GRAPH)
    return load_graph(str(path))


@dataclass
class FakeTarget(NoPods):
    """A `Target` without processes.

    Attributes:
        url: where its server listens.
        is_lost: the state that `begin_run` checks. A lost graph can't be used again.
        calls: the names of the operations that changed something, in order.
        answers: makes the text of each answer.
        too_long_status: the status for a prompt of more than `CONTEXT` letters. 0 if such a prompt is answered.
    """

    spec: GraphSpec
    url: str = ""
    is_lost: bool = False
    calls: list[str] = field(default_factory=list)
    log: list[ReplicaEvent] = field(default_factory=list)
    answers: Callable[[], str] = lambda: "four"
    too_long_status: int = 400
    lives: dict[Replica, int] = field(default_factory=dict)
    dead: set[Replica] = field(default_factory=set)

    def begin_run(self) -> None:
        """The log of earlier deaths is cleared."""
        if self.is_lost:
            raise GraphError("fake: the graph is lost")
        self.log = [one for one in self.log if one.incarnation == self.lives[one.replica]]

    @property
    def socket_factory(self) -> None:
        """Ordinary sockets reach its server."""
        return

    def entries(self) -> list[str]:
        """One server stands for the only front."""
        return [self.url]

    def alive(self, replica: Replica) -> bool:
        """True unless it was killed."""
        return replica not in self.dead

    def ready(self, replica: Replica) -> bool:
        """True unless it was killed."""
        return replica not in self.dead

    def ending(self, replica: Replica) -> bool:
        """Nothing takes time to end."""
        del replica
        return False

    async def gone(self, replica: Replica, within_s: float) -> bool:
        """True if it was killed."""
        del within_s
        return replica in self.dead

    async def kill(self, replica: Replica, scope: Scope) -> Landed:
        """Set the flag."""
        del scope
        if replica in self.dead:
            return Landed(ok=False, proof=f"{replica} was dead already", at_s=time.monotonic())
        self.calls.append(f"kill {replica}")
        self.dead.add(replica)
        self.log.append(Died(time.monotonic(), replica, self.lives[replica], 0, -9, aimed=True))
        return self._landed("flag set")

    async def terminate(self, replica: Replica) -> Landed:
        """As a kill."""
        return await self.kill(replica, PROCESS)

    async def interrupt(self, replica: Replica) -> Landed:
        """As a kill."""
        return await self.kill(replica, PROCESS)

    async def stall(self, replica: Replica, scope: Scope) -> Landed:
        """Can't be done to a flag."""
        del scope
        return Landed(ok=False, proof=f"{replica} has no processes", at_s=time.monotonic())

    async def resume(self, replica: Replica) -> Landed:
        """Nothing is ever stalled."""
        return self._landed(f"{replica} was not stalled")

    async def respawn(self, replica: Replica) -> Landed:
        """Clear the flag."""
        self.calls.append(f"respawn {replica}")
        self.start(replica)
        return self._landed("flag cleared")

    def use(self, replica: Replica, variant: str) -> None:
        """Note the variant."""
        self.calls.append(f"use {variant} {replica}")

    def varied(self) -> list[Replica]:
        """Flags have no command."""
        return []

    @property
    def own(self) -> FakeTarget:
        """The target itself carries out the user's own steps."""
        return self

    async def signal(self, replica: Replica, name: str, *, is_fault: bool) -> Landed:
        """Note the signal."""
        self.calls.append(f"{name} {replica}{' fault' if is_fault else ''}")
        return self._landed(f"{name} noted")

    async def command(self, key: str, part: str, aim: Replica | None) -> Landed:
        """Note the command. It fails if its text is `false`."""
        self.calls.append(f"{part} of {key} at {aim}")
        text = self.spec.own_steps[key.rsplit(maxsplit=1)[-1]].commands()[part]
        return Landed(ok=text != "false", proof=f"{part} noted", at_s=time.monotonic())

    async def end_commands(self, key: str) -> None:
        """Note the end."""
        self.calls.append(f"end of {key}")

    @property
    def resources(self) -> FakeTarget:
        """The target itself carries out squeezes."""
        return self

    async def squeeze(
        self, replica: Replica, what: Squeezable, amount: int, for_s: float
    ) -> Landed:
        """Note the squeeze."""
        self.calls.append(f"squeeze {replica} {what} {amount} {for_s:g}")
        return self._landed("squeeze noted")

    async def release(self, replica: Replica, what: Squeezable) -> Landed:
        """Note the end of a squeeze."""
        self.calls.append(f"release {replica} {what}")
        return self._landed("release noted")

    @property
    def network(self) -> FakeTarget:
        """The target itself notes the faults of the network."""
        return self

    async def begin(self, key: int, fault: NetworkFault, within_s: float) -> Landed:
        """Note the begin of a fault."""
        del within_s
        self.calls.append(f"begin {key} {fault.kind} {len(fault.edges)}")
        return self._landed("begin noted")

    async def end(self, key: int, fault: NetworkFault, settles_s: float) -> Landed:
        """Note the end of a fault."""
        del fault, settles_s
        self.calls.append(f"end {key}")
        return self._landed("end noted")

    @property
    def moments(self) -> FakeTarget:
        """The target itself tells of its moments."""
        return self

    async def started(self, replica: Replica, within_s: float) -> Landed:
        """A life that began by a respawn counts as a start."""
        if self.lives[replica]:
            return self._landed("flag is cleared")
        return too_late(f"{replica} was not started within {within_s:g} s")

    async def logged(self, replica: Replica, text: str, within_s: float) -> Landed:
        """A flag logs nothing."""
        return too_late(f"{replica} did not log {text} within {within_s:g} s")

    async def wait_ready(self, within_s: float) -> bool:
        """True unless it was killed."""
        del within_s
        return True

    def pids(self) -> list[int]:
        """A fake replica is not a process."""
        return []

    async def views(self) -> list[View]:
        """The fake graph lists no replicas."""
        return []

    async def measures(self) -> list[Measured]:
        """The fake graph does not use resources."""
        return []

    async def work(self) -> dict[Replica, Work]:
        """The fake graph does not know the work of its workers."""
        return {}

    def note_baseline_memory(self) -> None:
        """The fake graph does not use memory."""

    async def leaks(self) -> list[Leak]:
        """The fake graph does not leak."""
        return []

    def start(self, replica: Replica) -> None:
        """Begin the next life of a replica."""
        number = self.lives[replica] = self.lives.get(replica, -1) + 1
        self.dead.discard(replica)
        self.log.append(Spawned(time.monotonic(), replica, number, 0))
        self.log.append(BecameReady(time.monotonic(), replica, number))

    def _landed(self, proof: str) -> Landed:
        return Landed(ok=True, proof=proof, at_s=time.monotonic())

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """A completion of four tokens, streamed if that was asked for. It is an error while both workers are dead."""
        workers = {one for one in self.lives if one.role == "worker"}
        if workers <= self.dead:
            return web.json_response({"error": "no worker"}, status=503)
        asked = await request.json()
        if len(asked["prompt"]) > CONTEXT and self.too_long_status:
            return web.json_response({"error": "too long"}, status=self.too_long_status)
        choice = {"index": 0, "text": self.answers(), "finish_reason": "length"}
        whole = {"id": f"cmpl-{id(request)}", "choices": [choice]}
        if not asked.get("stream"):
            usage = {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}
            return web.json_response(whole | {"usage": usage})
        text = f"data: {json.dumps(whole)}\n\ndata: [DONE]\n\n"
        return web.Response(text=text, content_type="text/event-stream")


class FakeTargets:
    """Opens fake targets, as an `OpenTarget`, and remembers them."""

    def __init__(
        self, answers: Callable[[], str] = lambda: "four", *, too_long_status: int = 400
    ) -> None:
        self.opened: list[FakeTarget] = []
        self.open_now = 0
        self._answers = answers
        self._too_long_status = too_long_status

    @asynccontextmanager
    async def __call__(self, spec: GraphSpec, folder: Path) -> AsyncIterator[FakeTarget]:
        """Open a fake target. Its only log file shows that it was opened."""
        target = FakeTarget(spec, answers=self._answers, too_long_status=self._too_long_status)
        (folder / "logs").mkdir()
        (folder / "logs" / "fake.log").write_text("opened\n")
        for replica in spec.replicas():
            target.start(replica)
        app = web.Application()
        app.router.add_post("/v1/completions", target.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        target.url = f"http://127.0.0.1:{port}"
        self.opened.append(target)
        self.open_now += 1
        try:
            yield target
        except asyncio.CancelledError:
            target.calls.append("cancelled")
            raise
        finally:
            self.open_now -= 1
            await runner.cleanup()

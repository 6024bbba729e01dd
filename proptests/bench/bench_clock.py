"""Measure the error of the reported error window and time to first success: `tox -e bench -- bench_clock --outages 50`.

A server in another process refuses every request (HTTP 503) during its outages and reports when each began and ended. The server and the
clients read the same monotonic clock of the kernel, so the true times are known to the millisecond. For comparison, the same outages are
measured with a clock of whole seconds, like that of log lines without fractions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sys
import time
from asyncio import StreamReader, StreamWriter
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

from graphquake.harness.clients.load import Load
from graphquake.harness.history.events import Event, StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.percentile import percentile
from graphquake.harness.history.request import Request
from graphquake.harness.reports.impact import Impact, account
from graphquake.harness.spec.graph import GraphSpec, read_graph
from graphquake.harness.spec.plan import Kill, parse_plan

# The folder from which `python -m bench.…` finds this module.
PROPTESTS: Final = Path(__file__).parent.parent
RATE_PER_S: Final = 100.0
OUTAGE_S: Final = (0.15, 0.6)
BETWEEN_S: Final = 0.45
# The time after which the server ends if it is not killed.
AFTERWARDS_S: Final = 30.0
ANSWER: Final = json.dumps(
    {"id": "1", "choices": [{"text": "a", "finish_reason": "length"}], "usage": {"completion_tokens": 1}}
).encode()  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- the server


class Scripted:
    """A server with scripted outages. It prints when each outage began, when it ended, and when the server first answered again."""

    def __init__(self, outages: int, seed: int) -> None:
        self._draw, self._outages = random.Random(seed), outages
        self._down, self._silent_since = False, False

    async def serve(self) -> None:
        """Go through all outages and print an empty line. Then answer until killed, so that no request fails because the server ended."""
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        for _ in range(self._outages):
            await asyncio.sleep(BETWEEN_S + self._draw.random() * 0.1)
            self._down = self._silent_since = True
            self._say("down")
            await asyncio.sleep(self._draw.uniform(*OUTAGE_S))
            self._down = False
            self._say("up")
        await asyncio.sleep(BETWEEN_S)
        print(flush=True)
        await asyncio.sleep(AFTERWARDS_S)

    def _say(self, what: str) -> None:
        print(what, repr(time.monotonic()), flush=True)

    async def _talk(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                await reader.readexactly(length)
                status, body = (503, b"down") if self._down else (200, ANSWER)
                writer.write(
                    b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
                )
                if status == 200 and self._silent_since:
                    self._silent_since = False
                    self._say("served")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


# ---------------------------------------------------------------------------------------------------------- the clients


@dataclass(frozen=True, slots=True)
class Outage:
    """The true times of an outage, on the run's clock."""

    down_s: float
    up_s: float
    served_s: float


def _spec() -> GraphSpec:
    document = {
        "graph": "scripted",
        "roles": {"server": {"command": "none", "entry": "http://127.0.0.1:{port.http}"}},
        "load": {"model": "m", "rate_per_s": RATE_PER_S, "stream": 0.0, "max_tokens": 1},
    }
    return read_graph("scripted", document, Path("/scripted.toml"))


async def measure(outages: int, seed: int) -> tuple[list[Outage], list[Impact]]:
    """Run the server and the clients. Returns the true outages and the reported impacts."""
    argv = (sys.executable, "-m", "bench.bench_clock", "--serve", str(outages), "--seed", str(seed))
    server = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, cwd=PROPTESTS
    )
    assert server.stdout is not None
    try:
        port = int(await server.stdout.readline())
        spec, requests, said = _spec(), list[Request](), []
        zero_s = time.monotonic()
        async with Load(spec, [f"http://127.0.0.1:{port}"], zero_s, requests) as load:
            load.start()
            while line := (await server.stdout.readline()).split():
                said.append(float(line[1]) - zero_s)
            load.stop()
            await load.idle()
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()
    truth = [Outage(*said[at : at + 3]) for at in range(0, len(said), 3)]
    events: list[Event] = [
        StepDone(one.down_s, one.down_s, 0, Kill("server", 0), True, "") for one in truth
    ]
    history = History(spec, parse_plan("plan", ["kill server 0"]), events, requests)
    return truth, list(account(history).impacts)


@dataclass(frozen=True, slots=True)
class Errors:
    """The errors of the reported times, in seconds."""

    window_s: float
    first_ok_s: float
    whole_seconds_s: float


def errors(truth: list[Outage], found: list[Impact]) -> list[Errors]:
    """Return the errors for each outage. An error is infinite if the report knows no end."""
    return [
        Errors(
            abs(_or_never(f.window_s) - (t.up_s - t.down_s)),
            abs(_or_never(f.first_ok_s) - (t.served_s - t.down_s)),
            abs(math.floor(t.up_s) - math.floor(t.down_s) - (t.up_s - t.down_s)),
        )
        for t, f in zip(truth, found, strict=True)
    ]


def _or_never(value: float | None) -> float:
    return math.inf if value is None else value


def at_percentile(found: list[Errors], share: float) -> Errors:
    """Return the percentile of each error over all outages."""
    columns = zip(*map(astuple, found), strict=True)
    return Errors(*(percentile(column, share) or 0.0 for column in columns))


def main() -> None:
    """Measure and print the 95th percentile of each error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outages", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(Scripted(arguments.serve, arguments.seed).serve())
        return
    found = at_percentile(errors(*asyncio.run(measure(arguments.outages, arguments.seed))), 0.95)
    print(
        f"{arguments.outages} outages at {RATE_PER_S:g} requests/s, 95th percentile of the error:"
    )
    print(f"  error window            {found.window_s * 1e3:7.1f} ms")
    print(f"  time to first success   {found.first_ok_s * 1e3:7.1f} ms")
    print(f"  with whole seconds      {found.whole_seconds_s * 1e3:7.1f} ms")


if __name__ == "__main__":
    main()

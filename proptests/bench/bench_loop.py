"""Measure how late the event loop of the clients runs while an early verdict is asked for. `tox -e bench -- bench_loop`.

A bare HTTP server in a separate process answers at once. Every 200th request fails, so that the judge always has a new failure.
The clients send RATE requests a second in an open loop. A ticker in the same loop sleeps for 1 ms again and again, and writes down how much
later it woke up. `enough` judges the whole history as a search does, and never finds it enough.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from graphquake.harness.history.history import History
from graphquake.harness.promises.judgement import judge
from graphquake.harness.run.execute import execute
from graphquake.harness.spec.graph import load_graph
from graphquake.machines.runners.event_loop import new_loop

from support.fake_target import GRAPH, FakeTarget
from support.made import plan_of

LAG_P99_MAX_MS: Final = 5.0
TICK_S: Final = 0.001
SERVER: Final = """
import asyncio, sys
body = b'{"id":"1","choices":[{"index":0,"text":"four","finish_reason":"length"}]}'
right = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (len(body), body)
wrong = b"HTTP/1.1 503 No\\r\\nContent-Length: 0\\r\\n\\r\\n"

class Server(asyncio.Protocol):
    count = 0
    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""
    def data_received(self, data):
        self.buffer += data
        head, end, rest = self.buffer.partition(b"\\r\\n\\r\\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\\r\\n")[0] or 0) if end else 0
        if end and len(rest) >= length:
            self.buffer = rest[length:]
            Server.count += 1
            self.transport.write(wrong if Server.count > 2000 and Server.count % 200 == 0 else right)

async def main():
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def tick(lags_ms: list[float]) -> None:
    """Sleep for a millisecond again and again, and note how late each sleep ended."""
    while True:
        due_s = time.monotonic() + TICK_S
        await asyncio.sleep(TICK_S)
        lags_ms.append((time.monotonic() - due_s) * 1e3)


async def measure(url: str, folder: Path, for_s: float, rate_per_s: float) -> None:
    """Run the clients for so long, and print the lags."""
    path = folder / "fake.toml"
    text = GRAPH.replace("rate_per_s = 40", f"rate_per_s = {rate_per_s:g}\nstream = 0.0")
    path.write_text(text.replace('answers = { oracle = "support.fake_target:expected" }', ""))
    spec = load_graph(str(path))
    target = FakeTarget(spec, url=url)
    for replica in spec.replicas():
        target.start(replica)
    asked_s: list[float] = []

    def enough(history: History) -> bool:
        begun_s = time.monotonic()
        judge(history)
        asked_s.append(time.monotonic() - begun_s)
        return False

    lags_ms: list[float] = []
    cpu_s = time.process_time()
    ticker = asyncio.create_task(tick(lags_ms))
    plan = plan_of("kill worker 0", f"wait {for_s:.2f} s", "heal none")
    history = await execute(target, plan, enough=enough)
    ticker.cancel()
    cpu_s = time.process_time() - cpu_s
    late_ms = [(r.sent_s - r.intended_s) * 1e3 for r in history.requests]
    print(
        f"{len(history.requests)} requests in {history.end_s:.0f} s, {cpu_s:.1f} s of CPU; "
        f"asked {len(asked_s)} times, {sum(asked_s):.1f} s in all, the longest {max(asked_s, default=0):.2f} s"
    )
    for name, values in (("loop lag", lags_ms), ("request late", late_ms)):
        shares = " ".join(f"p{s:g} {percentile(values, s / 100):.2f}" for s in (50, 90, 99, 99.9))
        print(f"{name} in ms: {shares} max {max(values):.2f}")
    print("met" if percentile(lags_ms, 0.99) < LAG_P99_MAX_MS else "missed", "p99 < 5 ms")


def main() -> None:
    """Start the server, measure, and stop the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("for_s", nargs="?", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("rate_per_s", nargs="?", type=float, default=1000.0, metavar="RATE")
    arguments = parser.parse_args()
    command = [sys.executable, "-c", SERVER]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(measure(url, Path(folder), arguments.for_s, arguments.rate_per_s))
        finally:
            server.kill()


if __name__ == "__main__":
    main()

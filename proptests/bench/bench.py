"""Measure the cost of a run and of a client on this machine: `tox -e bench -- bench`.

Prints medians over several runs. The two sides of a ratio are measured in the same call. Timings of one machine mean little on another.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import uvloop

from graphquake.harness.clients.answers import body_of
from graphquake.harness.clients.load import Load
from graphquake.harness.history.events import StepDone
from graphquake.harness.history.request import (
    Outcome,
    Request,
)
from graphquake.harness.run.live import LiveRun, run_live
from graphquake.harness.spec.graph import GraphSpec, load_graph, read_graph
from graphquake.harness.spec.plan import Plan, parse_plan

ONE_KILL = "kill decode 0"
STEPS = (
    "burst 10 over 0.50 s",
    "kill decode 0",
    "respawn decode 0",
    "burst 5 over 0.00 s",
    "terminate decode 1",
    "burst 5 over 0.10 s",
)
REQUESTS = 3000
CLIENTS = 8
RECORDED = 100_000
CHUNKS = 16


def percentile(values: list[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def measure_runs(spec: GraphSpec, plan: Plan, runs: int, folder: Path) -> list[LiveRun]:
    """Make several runs of one plan, each on a fresh graph."""
    return [await run_live(spec, plan, folder / str(number)) for number in range(runs)]


def own_s(run: LiveRun) -> float:
    """Return the part of a run that is neither the graph's start nor a phase, in seconds."""
    return run.live_s - run.start_s - run.history.end_s


def gaps_ms(runs: list[LiveRun]) -> list[float]:
    """Return the gaps between the end of a step and the beginning of the next one, in milliseconds."""
    gaps = []
    for run in runs:
        steps = list(run.history.of(StepDone))
        gaps += [(b.begun_s - a.at_s) * 1e3 for a, b in itertools.pairwise(steps)]
    return gaps


# ---------------------------------------------------------------------------------------------------- the client's CPU

SERVER = f"""
import asyncio, json
def event(text, finish):
    choice = {{"index": 0, "text": text, "finish_reason": finish}}
    return json.dumps({{"id": "x", "object": "text_completion", "model": "tiny", "choices": [choice]}})
chunk, last = event("a", None), event("", "length")
head = b"HTTP/1.1 200 Outcome.OK\\r\\nContent-Type: text/event-stream\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
def framed(text):
    data = f"data: {{text}}\\n\\n".encode()
    return f"{{len(data):x}}\\r\\n".encode() + data + b"\\r\\n"
async def serve(reader, writer):
    try:
        while True:
            request = await reader.readuntil(b"\\r\\n\\r\\n")
            length = next(int(l.split(b":")[1]) for l in request.lower().split(b"\\r\\n") if l.startswith(b"content-length"))
            await reader.readexactly(length)
            writer.write(head)
            for _ in range({CHUNKS}):
                writer.write(framed(chunk))
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(framed(last) + framed("[DONE]") + b"0\\r\\n\\r\\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


async def bare_us(url: str, spec: GraphSpec) -> float:
    """Measure a bare aiohttp loop that sends at the same rate. Returns its CPU time, in microseconds for each request."""

    async def send(session: aiohttp.ClientSession, number: int) -> None:
        body = json.dumps(body_of(spec.load, number, stream=True)).encode()
        async with session.post(
            url, data=body, headers={"Content-Type": "application/json"}
        ) as response:
            async for _ in response.content.iter_any():
                pass

    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        asyncio.TaskGroup() as tasks,
    ):
        begun_s, cpu_s = time.monotonic(), time.process_time()
        running = []
        for number in range(REQUESTS):
            await asyncio.sleep(begun_s + number / spec.load.rate_per_s - time.monotonic())
            running.append(tasks.create_task(send(session, number)))
        await asyncio.gather(*running)
        return (time.process_time() - cpu_s) / REQUESTS * 1e6


async def ours_us(entry: str, spec: GraphSpec) -> float:
    """Measure the load generator. Returns its CPU time, in microseconds for each request."""
    requests: list[Request] = []
    async with Load(spec, [entry], time.monotonic(), requests) as load:
        begun_s = time.process_time()
        load.start()
        while len(requests) < REQUESTS:
            await asyncio.sleep(0.05)
        load.stop()
        await load.idle()
        spent_s = time.process_time() - begun_s
    if any(request.outcome != Outcome.OK for request in requests):
        raise SystemExit("the bench's own server answered wrong")
    return spent_s / len(requests) * 1e6


async def bare_closed_us(url: str, spec: GraphSpec) -> float:
    """Return the CPU time of one request in microseconds, for plain aiohttp clients in a closed loop with streamed answers."""

    async def be_client(session: aiohttp.ClientSession, index: int) -> None:
        for turn in range(spec.load.requests_per_client):
            number = turn * spec.load.clients + index
            body = json.dumps(body_of(spec.load, number, stream=True)).encode()
            headers = {"Content-Type": "application/json"}
            async with session.post(url, data=body, headers=headers) as response:
                async for _ in response.content.iter_any():
                    pass

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        cpu_s = time.process_time()
        await asyncio.gather(*(be_client(session, index) for index in range(spec.load.clients)))
        count = spec.load.clients * spec.load.requests_per_client
        return (time.process_time() - cpu_s) / count * 1e6


async def ours_closed_us(entry: str, spec: GraphSpec) -> float:
    """Measure the load generator in a closed loop. Returns its CPU time, in microseconds for each request."""
    requests: list[Request] = []
    async with Load(spec, [entry], time.monotonic(), requests) as load:
        begun_s = time.process_time()
        load.start()
        await load.clients_end()
        spent_s = time.process_time() - begun_s
    if any(request.outcome != Outcome.OK for request in requests):
        raise SystemExit("the bench's own server answered wrong")
    return spent_s / len(requests) * 1e6


def bench_spec(entry: str, **load: float) -> GraphSpec:
    """Return the graph whose only role is the server of this benchmark."""
    document = {
        "graph": "bench",
        "roles": {"server": {"command": "none", "entry": entry}},
        "load": {"model": "tiny", "stream": 1.0, "max_tokens": CHUNKS} | load,
    }
    return read_graph("bench", document, Path("bench.toml"))


async def client_cost(turns: int) -> dict[str, float]:
    """Measure the median CPU time of a streamed request in the open and in the closed loop, against a bare loop. Measure memory, too."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        entry = f"http://127.0.0.1:{int(await process.stdout.readline())}"
        opened = bench_spec(entry, rate_per_s=800)
        closed = bench_spec(entry, clients=CLIENTS, requests_per_client=100)
        url = f"{entry}/v1/completions"
        found: dict[str, list[float]] = {}
        for _ in range(turns):
            for name, cost_us in (
                ("bare_cpu_us", bare_us(url, opened)),
                ("client_cpu_us", ours_us(entry, opened)),
                ("bare_closed_cpu_us", bare_closed_us(url, closed)),
                ("client_closed_cpu_us", ours_closed_us(entry, closed)),
            ):
                found.setdefault(name, []).append(await cost_us)
        medians = {name: statistics.median(values) for name, values in found.items()}
        medians["client_to_bare"] = medians["client_cpu_us"] / medians["bare_cpu_us"]
        ratio = medians["client_closed_cpu_us"] / medians["bare_closed_cpu_us"]
        return medians | {"client_to_bare_closed": ratio, "mib_100k_requests": memory_mib(entry)}
    finally:
        process.kill()
        await process.wait()


def memory_mib(entry: str) -> float:
    """Return the peak memory of a process that sends 100,000 requests and keeps their outcomes, in MiB."""
    code = (
        "import asyncio, resource, sys\nfrom bench import bench\n"
        f"spec = bench.bench_spec({entry!r}, clients={CLIENTS}, requests_per_client={RECORDED // CLIENTS})\n"
        f"asyncio.run(bench.ours_closed_us({entry!r}, spec))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(ran.stdout)


async def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", default="dynamo-disagg")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    spec = load_graph(arguments.graph)
    with tempfile.TemporaryDirectory() as folder:
        kill = await measure_runs(
            spec, parse_plan("bench", [ONE_KILL]), arguments.runs, Path(folder) / "kill"
        )
        steps = await measure_runs(
            spec, parse_plan("bench", STEPS), arguments.runs, Path(folder) / "steps"
        )
    both = [*kill, *steps]
    found: dict[str, float | list[str]] = {
        "start_to_first_answer_s": statistics.median(run.start_s for run in both),
        "one_kill_run_s": statistics.median(run.live_s for run in kill),
        "steps_run_s": statistics.median(run.live_s for run in steps),
        "step_gap_p99_ms": percentile(gaps_ms(both), 0.99),
        "harness_own_s": statistics.median(own_s(run) for run in both),
        "harness_own_s_max": max(own_s(run) for run in both),
        **await client_cost(3),
        "verdicts": [run.verdict.kind for run in both],
    }
    if arguments.json:
        print(json.dumps({"graph": spec.name, **found}, indent=1))
        return
    for name, value in found.items():
        print(
            f"{name:26} {' '.join(value)}" if isinstance(value, list) else f"{name:26} {value:.3g}"
        )


if __name__ == "__main__":
    uvloop.run(main())

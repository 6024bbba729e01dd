"""Tests of idle victims: faults that hit a replica which had served nothing."""

from __future__ import annotations

import asyncio
import http.server
import itertools
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from graphquake.harness.history.events import BecameReady, StepDone, Traffic, TrafficMeans
from graphquake.harness.history.history import History
from graphquake.harness.observation.http_probe import Prober
from graphquake.harness.observation.sock_diag import SockDiag
from graphquake.harness.processes.traffic import TrafficMeter
from graphquake.harness.promises.idle import idle_faults, is_idle, share_text, unserved
from graphquake.harness.promises.judgement import judge
from graphquake.harness.reports.story import story
from graphquake.harness.run.traffic import BASELINE_MAX_S, TrafficWatch
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import Work
from graphquake.machines.findings.fault_coverage import FaultCoverage

from support.fake_target import FakeTarget, fake_spec
from support.made import Made, plan_of
from support.toys import in_loop, toy_spec
from support.undisturbed import run_live

DECODE_0 = Replica("decode", 0)


def made(*amounts: tuple[str, float], means: TrafficMeans = "bytes", replicas: int = 2) -> Made:
    """A kept run with one kill for each pair: the victim, and its bytes of 1,000 that its role received before the kill."""
    steps = [f"kill {victim}" for victim, _ in amounts]
    run = Made(plan=plan_of(*steps))
    for number in range(30):
        run.ask(0.03 * number)
    for number, (victim, amount) in enumerate(amounts):
        at_s = 1.1 + number
        one = Replica.parse(victim)
        run.events.append(Traffic(at_s, 0.0, one, number, means, amount, 1000.0, replicas))
        run.step(f"kill {victim}", at_s, number=number)
    return run


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("run", "is_weak"),
    [
        (made(("decode 0", 0)), True),
        (made(("decode 0", 49)), True),
        (made(("decode 0", 51)), False),
        (made(("decode 0", 0), ("decode 1", 900)), False),
        (made(("decode 0", 0), ("decode 1", 0)), True),
        (made(("decode 0", 0), means="cpu"), True),
        (made(("decode 0", 0), means="none"), False),
        (made(("prefill 0", 1000), replicas=1), False),
    ],
    ids=[
        "nothing", "under a tenth of an equal share", "over it", "one of two victims", "two victims",
        "by CPU time", "not known", "the only replica",
    ],
)  # fmt: skip
def test_a_run_is_weak_if_each_victim_is_idle(run: Made, is_weak: bool) -> None:  # noqa: FBT001
    """A run whose faults all hit idle replicas is weak, and its reason names them. One victim that served is enough against that."""
    verdict = judge(run.history())
    assert verdict.kind == "kept"
    assert verdict.weak == is_weak
    assert any("decode 0 had" in why for why in verdict.weak_because) == is_weak


@pytest.mark.simulated
def test_an_idle_victim_does_not_count_as_tried() -> None:
    """A fault at an idle replica is counted apart. Its kind stays among those that were not tried."""
    run = made(("decode 0", 0), ("prefill 0", 1000))
    coverage = FaultCoverage(run.spec)
    coverage.add(run.history())
    assert coverage.tried()["kill decode (idle)"] == 1
    assert "kill decode" in coverage.not_tried()
    assert "kill prefill" not in coverage.not_tried()


@pytest.mark.simulated
def test_events_of_traffic_are_read_again(tmp_path: Path) -> None:
    """A saved run says the same of its victims when it is read again."""
    history = made(("decode 0", 0)).history()
    history.save(tmp_path)
    assert idle_faults(History.load(tmp_path)) == idle_faults(history) == {0}


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("traffic", "text"),
    [
        (Traffic(1.0, 0.0, DECODE_0, 0, "bytes", 480.0, 1000.0, 2), "48% of the traffic of decode"),
        (
            Traffic(1.0, 0.0, DECODE_0, 0, "bytes", 4.0, 1000.0, 2),
            "0% of the traffic of decode",
        ),
        (Traffic(1.0, 0.0, DECODE_0, 0, "cpu", 0.5, 1.0, 2), "50% of the CPU time of decode"),
        (Traffic(1.0, 0.0, DECODE_0, 0, "bytes", 9.0, 9.0, 1), "the only ready decode"),
        (
            Traffic(1.0, 0.0, DECODE_0, 0, "none", 0.0, 0.0, 2),
            "its share of the traffic of decode is not known",
        ),
    ],
)
def test_the_text_of_a_share(traffic: Traffic, text: str) -> None:
    """The proof of a fault tells the victim's share, or why it is not known."""
    assert share_text(traffic) == text


class Working(FakeTarget):
    """A target in memory whose replicas have done a given amount of work at each sample."""

    samples: list[dict[str, Work]]

    async def work(self) -> dict[Replica, Work]:
        """The next sample, or the last one again."""
        now = self.samples.pop(0) if len(self.samples) > 1 else self.samples[0]
        return {Replica.parse(name): work for name, work in now.items()}


def sampled(folder: Path, *samples: dict[str, Work]) -> tuple[Working, TrafficWatch]:
    """A watch of a target with these samples. Its clock shows 0.25 s more at each look."""
    target = Working(fake_spec(folder))
    target.samples = [dict(one) for one in samples]
    clock = itertools.count()
    return target, TrafficWatch(target, lambda: next(clock) / 4, 0.0)


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("first", "second", "means", "share"),
    [
        ((Work(500, 0.0), Work(500, 0.0)), (Work(600, 0.0), Work(800, 0.0)), "bytes", 0.25),
        ((Work(500, 1.0), Work(500, 1.0)), (Work(510, 1.9), Work(520, 1.1)), "cpu", 0.9),
        ((Work(0, 0.0), Work(0, 0.0)), (Work(0, 0.01), Work(0, 0.02)), "none", None),
    ],
)
@in_loop
async def test_the_means_by_which_a_share_is_known(
    tmp_path: Path,
    first: tuple[Work, Work],
    second: tuple[Work, Work],
    means: TrafficMeans,
    share: float | None,
) -> None:
    """Shares come from the bytes since the run began. With few bytes they come from the CPU time, and with little of that from nothing."""
    names = ("worker 0", "worker 1")
    samples = dict(zip(names, first, strict=True)), dict(zip(names, second, strict=True))
    _, watch = sampled(tmp_path, *samples)
    await watch.sample()
    [found] = await watch.before(0, plan_of("kill worker 0"))
    assert found.means == means
    if share is not None:
        assert found.amount / found.of_role == pytest.approx(share)


@pytest.mark.simulated
@in_loop
async def test_a_fault_that_an_event_times_does_not_wait_for_a_sample(tmp_path: Path) -> None:
    """The work of its victim is that of the last sample. A fault without an event takes a new sample, if the last one is old."""
    work = ({"worker 0": Work(amount, 0.0), "worker 1": Work(amount, 0.0)} for amount in range(3))
    _, watch = sampled(tmp_path, *work)
    await watch.sample()
    plan = plan_of("wait until 2 in flight", "kill worker 0", "kill worker 0")
    found = [await watch.before(number, plan) for number in range(3)]
    assert [[one.at_s for one in each] for each in found] == [[], [0.0], [0.5]]


@pytest.mark.simulated
@in_loop
async def test_a_replica_that_came_back_is_measured_since_then(tmp_path: Path) -> None:
    """The work of a replica counts from the moment at which its present incarnation became ready."""
    names = ("worker 0", "worker 1")
    target, watch = sampled(
        tmp_path,
        dict.fromkeys(names, Work(0, 0.0)),
        {"worker 0": Work(5000, 0.0), "worker 1": Work(5000, 0.0)},
        {"worker 0": Work(5000, 0.0), "worker 1": Work(9000, 0.0)},
    )
    await watch.sample()
    await watch.sample()
    target.log.append(BecameReady(0.3, Replica("worker", 0), 1))
    [found] = await watch.before(0, plan_of("kill worker 0"))
    assert (found.since_s, found.amount, found.of_role) == (0.25, 0.0, 4000.0)
    assert is_idle(found)


@in_loop
async def test_a_router_that_ignores_a_worker_makes_the_run_weak(tmp_path: Path) -> None:
    """The front lists two workers and uses one. The kill of the other proves nothing, and run, proof and story say so."""
    run = await run_live(
        toy_spec(tmp_path, front="--shun"), plan_of("kill worker 1"), tmp_path / "run"
    )
    assert run.verdict.violations == ()
    assert any("worker 1 had 0% of the traffic" in why for why in run.verdict.weak_because)
    [step] = run.history.of(StepDone)
    assert step.landed
    assert step.begun_s >= BASELINE_MAX_S
    assert step.proof.endswith("; idle: 0% of the traffic of worker")
    assert [str(one.replica) for one in unserved(run.history)] == ["worker 1"]
    assert "worker 1 was ready, but idle" in story(run.history)[0]


@in_loop
async def test_the_share_of_a_victim_that_serves(tmp_path: Path) -> None:
    """The front sends every second request to a worker. The baseline is short, and the victim's share is about a half."""
    run = await run_live(toy_spec(tmp_path), plan_of("kill worker 1"), tmp_path / "run")
    [before] = [one for one in run.history.of(Traffic) if one.number == 0]
    assert (before.means, before.replicas) == ("bytes", 2)
    assert 0.25 < before.amount / before.of_role < 0.75
    plan_s = run.history.phase_began_s("plan")
    assert plan_s is not None
    assert plan_s < BASELINE_MAX_S
    assert not idle_faults(run.history)


# --------------------------------------------------------------------------------------------------------- the kernel's counts


@contextmanager
def server() -> Iterator[int]:
    """A server that reads what it gets, in a thread of this process. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    while connection.recv(4096):
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_bytes_of_open_and_closed_connections_are_counted() -> None:
    """The kernel tells the received bytes of a connection while it is open, and once more when it has been closed."""
    with closing(SockDiag()) as kernel, server() as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"x" * 1000)
            [at_server] = [
                one for one in kernel.open_sockets() if one.local_port == port and one.remote_port
            ]
            assert at_server.received_bytes == 1000
        closed = []
        for _ in range(100):
            closed += [one for one in kernel.closed_sockets() if one.local_port == port]
            if closed:
                break
            threading.Event().wait(0.02)
        assert [one.cookie for one in closed] == [at_server.cookie]
        assert closed[0].received_bytes >= 1000


class Page(http.server.BaseHTTPRequestHandler):
    """Answers every GET with an empty page."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@in_loop
async def test_probes_of_the_harness_do_not_count_as_work() -> None:
    """GETs of the harness's own prober are left out. Those of another client count."""
    one = Replica("worker", 0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{web.server_port}/health"
        async with Prober() as prober, Prober() as other:
            with closing(TrafficMeter(prober)) as meter:
                before = (await meter.sample({one: [os.getpid()]}))[one].received_bytes
                for _ in range(5):
                    await prober.get(url)
                await asyncio.sleep(0.1)
                probed = (await meter.sample({one: [os.getpid()]}))[one].received_bytes
                await other.get(url)
                await asyncio.sleep(0.1)
                asked = (await meter.sample({one: [os.getpid()]}))[one].received_bytes
        web.shutdown()
        thread.join(5)
    assert probed == before
    assert asked > probed


@in_loop
async def test_samples_at_the_same_time_wait_for_each_other() -> None:
    """Samples may be taken at the same time, and may be cancelled. The kernel answers one question at a time."""
    async with Prober() as prober:
        with closing(TrafficMeter(prober)) as meter:
            cancelled = asyncio.create_task(meter.sample({}))
            await asyncio.sleep(0)
            cancelled.cancel()
            samples = await asyncio.gather(*(meter.sample({}) for _ in range(20)))
    assert samples == [{}] * 20

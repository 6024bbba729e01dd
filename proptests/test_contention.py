"""Detecting CPU contention from other processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquake.harness.run.noise.contention import (
    OTHERS_MAX,
    WAITING_MAX,
    WINDOW_S,
    ContentionMonitor,
    Sample,
    contention,
    cores_busy_s,
)

CORES = 2
BUSY = "while True: pass"


def between(waiting: float, others: float, ran: float = 0.2, for_s: float = 1.0) -> str:
    """The contention in an interval, from the waiting threads a core and the shares of the cores that others and the graph used."""
    core_s = CORES * for_s
    then = Sample(at_s=50.0, busy_s=700.0, ran_s=30.0, waited_s=9.0)
    now = Sample(
        at_s=50.0 + for_s,
        busy_s=700.0 + (others + ran) * core_s,
        ran_s=30.0 + ran * core_s,
        waited_s=9.0 + waiting * core_s,
    )
    return contention(then, now, CORES)


def test_contention_is_told_with_both_numbers() -> None:
    """Threads that wait while others use the cores are contention, and the text gives both numbers."""
    assert between(waiting=1.5, others=0.5) == (
        "machine too busy: 1.5 threads of the graph and its clients waited for each core "
        "while others used 50% of the cores"
    )


@given(
    waiting=st.floats(0, 10),
    others=st.floats(0, 1),
    ran=st.floats(0, 1),
    for_s=st.floats(WINDOW_S, 2 * WINDOW_S),
)
def test_contention_needs_both(waiting: float, others: float, ran: float, for_s: float) -> None:
    """There is contention if and only if threads wait and others use the cores, however much the graph itself ran."""
    close = abs(waiting - WAITING_MAX) < 1e-6 or abs(others - OTHERS_MAX) < 1e-6
    found = bool(between(waiting, others, ran, for_s))
    assert close or found == (waiting > WAITING_MAX and others > OTHERS_MAX)


def test_a_graph_that_waits_for_itself_is_not_contention() -> None:
    """Four threads of the graph on two full cores wait for each other, but other processes do not use the cores."""
    assert between(waiting=1.0, others=0.0, ran=1.0) == ""


@contextmanager
def busy_processes(count: int) -> Iterator[list[int]]:
    """Start processes that compete for the first core of this machine."""
    core = min(os.sched_getaffinity(0))
    with ExitStack() as stack:
        started = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
            for _ in range(count)
        ]
        for one in started:
            os.sched_setaffinity(one.pid, {core})
            stack.callback(one.kill)
        yield [one.pid for one in started]


def test_work_of_a_lower_priority_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in the background of another session does not give way to a graph: it may be the cause of a violation."""
    text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 500 200 7000 900 40 30 0 60 0\ncpu1 9 9 9 9 9 9 9 9 9 9\n"
    monkeypatch.setattr(Path, "read_text", lambda _: text)
    assert cores_busy_s(frozenset({0})) == 870 / os.sysconf("SC_CLK_TCK")


def test_the_kernel_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that compete for one core are measured as waiting. A process that is gone does not count."""
    core = min(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {core})
    monitor = ContentionMonitor()
    with busy_processes(6) as pids:
        ours = [*pids[:3], 2**22 - 1]
        assert monitor.sample(ours) == (0.0, "")
        begun_s = time.monotonic()
        words = ""
        # Three of six have half of the core, and wait for the rest. The time until all of them are up depends on the machine.
        while not words and time.monotonic() < begun_s + 15.0:
            time.sleep(0.5)
            since_s, words = monitor.sample(ours)
    assert words.startswith("machine too busy: ")
    assert since_s > 0.0

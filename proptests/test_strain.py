"""Was the machine there for the graph, or busy with others?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from graphquake.harness.run.contention import Strain

BUSY = "while True: pass"


@contextmanager
def busy(count: int) -> Iterator[list[int]]:
    """So many processes that take all of a core that they get, all on the same core."""
    core = min(os.sched_getaffinity(0))
    with ExitStack() as stack:
        begun = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
            for _ in range(count)
        ]
        for one in begun:
            os.sched_setaffinity(one.pid, {core})
            stack.callback(one.kill)
        yield [one.pid for one in begun]


def seen(pids: list[int], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a look says after a second of them, on a machine of which that one core is all."""
    core = min(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {core})
    looks = Strain()
    assert looks.look(pids) == (0.0, "")
    time.sleep(1.1)
    return looks.look(pids)[1]


def test_others_that_take_the_cores_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of ours and two of others on one core: each of ours waits most of the time, and others have half of it."""
    with busy(4) as pids:
        words = seen(pids[:2], monkeypatch)
    assert words.startswith("machine too busy: 1.")
    assert "while others used" in words


def test_a_graph_that_waits_for_itself_is_its_own_doing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four of ours on one core wait for each other; that is no excuse."""
    with busy(4) as pids:
        assert seen(pids, monkeypatch) == ""


def test_a_core_that_is_shared_but_free_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is gone, or sleeps, waits for nothing."""
    with busy(0):
        assert seen([os.getpid(), 2**22 - 1], monkeypatch) == ""

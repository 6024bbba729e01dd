"""Read /proc about a graph's processes, and send them signals that cannot reach other processes.

A signal goes to a pidfd, never to a name or a bare pid. First the pidfd is opened. Then a check shows that the pid still belongs to the
right process. If the pid was reused in between, its new process therefore gets no signal.

Every process of a graph carries two marks in its environment: its launcher (`OWNER`) and its incarnation (`REPLICA`). Marks still
identify a process after the death of its parent, of the guard, or of the harness. A program that overwrites its environment, to change its
title, loses its marks. It is still found as a descendant, or by its session.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, NamedTuple

from graphquake.harness.processes.guard import pids, stat_of

OWNER: Final = "GRAPHQUAKE_OWNER"
REPLICA: Final = "GRAPHQUAKE_REPLICA"
# The interval at which a process tree is read again while it is being killed. Processes forked meanwhile are found the next time.
LOOK_AGAIN_S: Final = 0.002
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class Owner(NamedTuple):
    """The launcher of a graph: a process, and the number of the graph among those that it launched.

    Attributes:
        start: when the process started, in clock ticks since boot.
        graph: the number of the graph, as text.
    """

    pid: int
    start: int
    graph: str

    def __str__(self) -> str:
        return f"{self.pid}:{self.start}:{self.graph}"

    @property
    def lives(self) -> bool:
        """True if this process still runs. A reused pid does not count."""
        stat = stat_of(self.pid)
        return stat is not None and stat.runs and stat.start == self.start


def this_owner(graph: str) -> Owner:
    """Return the present process as the owner of a graph."""
    stat = stat_of(os.getpid())
    assert stat is not None
    return Owner(os.getpid(), stat.start, graph)


def marks_of(pid: int) -> dict[str, str]:
    """The marks in the environment that a process was started with. Empty if the environment cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
    except OSError:
        return {}
    if b"GRAPHQUAKE_" not in environment:
        return {}
    pairs = (one.decode("utf-8", "replace").partition("=") for one in environment.split(b"\0"))
    return {name: value for name, _, value in pairs if name in (OWNER, REPLICA)}


def command_of(pid: int) -> str:
    """The command line of a process, or its name if it has none."""
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        line = file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        if line:
            return line
    stat = stat_of(pid)
    return stat.comm if stat else "?"


def is_called(pid: int, name: str) -> bool:
    """True if the process runs and has this name.

    Three names count: the name in the kernel (at most 15 bytes), the file name of the program, and the start of the command line.
    """
    stat = stat_of(pid)
    if stat is None or not stat.runs:
        return False
    command = command_of(pid)
    program = os.path.basename(command.partition(" ")[0])
    return stat.comm == name[:15] or program == name or command.startswith(name)


def runs(pid: int) -> bool:
    """True if the process exists and is not a zombie."""
    stat = stat_of(pid)
    return stat is not None and stat.runs


def is_stopped(pid: int) -> bool:
    """True if the process was stopped by a signal."""
    stat = stat_of(pid)
    return stat is not None and stat.state == "T"


def cpu_s_of(pid: int) -> float:
    """The CPU time of a process so far, in seconds, or 0 if it does not exist. It is a multiple of the kernel's tick, mostly 10 ms."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def send_signal(pid: int, number: signal.Signals, still: Callable[[], bool]) -> bool:
    """Send a signal to a process through a pidfd. True if the signal was sent.

    Args:
        pid: the process.
        number: the signal.
        still: returns true if the pid belongs to the right process. It is called after the pidfd was opened, before the signal.
    """
    with suppress(ProcessLookupError), opened(pid) as pidfd:
        if still():
            signal.pidfd_send_signal(pidfd, number)
            return True
    return False


async def signal_and_see(
    pid: int, number: signal.Signals, still: Callable[[], bool], within_s: float
) -> bool:
    """Send a signal like `send_signal`, and wait until the process has ended. False if it still runs after `within_s` seconds."""
    with suppress(ProcessLookupError), opened(pid) as pidfd:
        if still():
            signal.pidfd_send_signal(pidfd, number)
        return await ended(pidfd, within_s)
    return True


@contextmanager
def opened(pid: int) -> Iterator[int]:
    """Open a pidfd of a process. Raises ProcessLookupError if the process does not exist."""
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


async def ended(pidfd: int, within_s: float) -> bool:
    """Wait until the process of a pidfd has ended. False if it still runs after `within_s` seconds."""
    loop = asyncio.get_running_loop()
    gone = loop.create_future()
    loop.add_reader(pidfd, lambda: None if gone.done() else gone.set_result(None))
    try:
        async with asyncio.timeout(within_s):
            await gone
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
    return True


async def kill_all(find: Callable[[], Collection[int]], within_s: float) -> tuple[int, bool]:
    """Send SIGKILL to the processes that `find` returns, until none of them runs. The result is that of `signal_until`.

    When `find` returns nothing, it is called once more: a process may have forked and ended during the first look.
    """
    until_s = time.monotonic() + within_s
    killed, is_done = await signal_until(find, signal.SIGKILL, runs, within_s)
    while is_done:
        await asyncio.sleep(LOOK_AGAIN_S)
        more, is_done = await signal_until(find, signal.SIGKILL, runs, until_s - time.monotonic())
        if not more:
            break
        killed += more
    return killed, is_done


async def signal_until(
    find: Callable[[], Collection[int]],
    number: signal.Signals,
    lacks: Callable[[int], bool],
    within_s: float,
) -> tuple[int, bool]:
    """Call `find` again and again, and send a signal to each new process that it returns, until all show the effect of the signal.

    Args:
        find: returns the present pids. Each is checked again before it is signalled.
        number: the signal, sent once to each process.
        lacks: returns true while a process does not show the effect of the signal.
        within_s: the time limit in seconds.

    Returns:
        The number of processes that got the signal. True if all processes show the effect, false if the time limit was reached.
    """
    until_s = time.monotonic() + within_s
    signalled: set[int] = set()
    while found := [pid for pid in find() if lacks(pid)]:
        for pid in found:
            if pid not in signalled and send_signal(pid, number, partial(_finds, find, pid)):
                signalled.add(pid)
        if time.monotonic() > until_s:
            return len(signalled), False
        await asyncio.sleep(LOOK_AGAIN_S)
    return len(signalled), True


def _finds(find: Callable[[], Collection[int]], pid: int) -> bool:
    return pid in find()


# ---------------------------------------------------------------------------------------------------------- leftovers


def marked(owner: Owner) -> list[int]:
    """The processes that carry the mark of this owner."""
    return [pid for pid in pids() if marks_of(pid).get(OWNER) == str(owner)]


def of_sessions(sessions: Collection[int], since: int) -> list[int]:
    """The processes of these sessions that started at or after `since` (clock ticks since boot)."""
    stats = ((pid, stat_of(pid)) for pid in pids())
    return [pid for pid, stat in stats if stat and stat.session in sessions and stat.start >= since]


def ownerless() -> list[int]:
    """The processes of graphs whose harness is gone."""
    found = []
    for pid in pids():
        mark = marks_of(pid).get(OWNER, "").split(":")
        try:
            owner = Owner(int(mark[0]), int(mark[1]), mark[2])
        except (ValueError, IndexError):
            continue
        # If the harness has just died, its guard kills these processes, too. To kill them twice does no harm.
        if not owner.lives:
            found.append(pid)
    return found


# --------------------------------------------------------------------------------------------------------------- sockets


def sockets_of(pid: int) -> set[str]:
    """The inodes of the sockets that a process holds."""
    found = set()
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found

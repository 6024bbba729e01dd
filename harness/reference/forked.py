"""A child process that is a fork of this process. So the child need not import slow modules again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from typing import Protocol, Self

_STANDARD = (0, 1, 2)


class Process(Protocol):
    """The part of `asyncio.subprocess.Process` that the engine uses."""

    @property
    def pid(self) -> int:
        """The process id."""
        ...

    async def wait(self) -> int:
        """Wait until the process has ended. Returns its exit status, or the negative number of the signal that killed it."""
        ...

    def kill(self) -> None:
        """Send SIGKILL to the process."""
        ...


class Forked:
    """A forked child process. `start` makes it, inside a running event loop."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._pidfd, self._reap)

    @classmethod
    def start(cls, run: Callable[[], None], fds: Sequence[int]) -> Self:
        """Fork this process. The child calls `run` without an event loop, and exits: with status 0, or with 1 if `run` raises.

        Args:
            run: the function that the child calls.
            fds: the file descriptors that the child keeps open, in addition to stdin, stdout and stderr. The child closes all others.
                Otherwise connections of this process would stay open after this process closed them.
        """
        pid = os.fork()
        if pid:
            return cls(pid)
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            for fd in map(int, os.listdir("/proc/self/fd")):
                if fd not in (*_STANDARD, *fds):
                    try:
                        os.close(fd)
                    except OSError:
                        continue  # the descriptor that read the folder is closed already
            run()
            status = 0
        finally:
            os._exit(status)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        self._ended.set_result(os.waitstatus_to_exitcode(status))

    async def wait(self) -> int:
        """See `Process.wait`."""
        return await asyncio.shield(self._ended)

    def kill(self) -> None:
        """See `Process.kill`."""
        if not self._ended.done():
            os.kill(self.pid, signal.SIGKILL)

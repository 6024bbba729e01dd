"""A child process that is a fork of this one, so that it need not import slow modules again."""

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
        """Its pid."""
        ...

    async def wait(self) -> int:
        """Wait until it has ended."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...


class Forked:
    """A forked child. `start` makes it, in a running event loop."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._pidfd, self._reap)

    @classmethod
    def start(cls, run: Callable[[], None], fds: Sequence[int]) -> Self:
        """Fork. The child calls a function, without the event loop, and exits.

        Args:
            fds: the descriptors that it keeps open, in addition to the standard ones. Others would keep connections of this process alive.
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
                        continue  # the descriptor that listed them
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

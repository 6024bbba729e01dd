"""Start the guard of a graph, send it orders, and receive its report of each exit.

See `guard` for the guarantees. If the harness closes its end of the socket, the guard ends all processes of the graph. To close a socket
needs no event loop and cannot fail.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from graphquake.harness.errors import GraphError
from graphquake.harness.processes import guard
from graphquake.harness.processes.procfs import ended

# The time limit for the guard to end all processes. A process that still runs after this time is stuck in the kernel.
END_WITHIN_S: Final = 10.0
# The pause before an order is sent again, because the socket was full.
FULL_S: Final = 0.002
ORDER_MAX_BYTES: Final = guard.PACKET_MAX_BYTES // 2
GONE: Final = "the guard process of the graph has ended; start again"
NANO: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Child:
    """A process that the guard has started.

    Attributes:
        pidfd: a file descriptor of the process. The guard opened it before it could reap the process, so it means no other process.
        at_s: the monotonic time at which the process was started.
    """

    pid: int
    pidfd: int
    at_s: float

    @property
    def called(self) -> str:
        """The process in words. A process in a cluster has no pid here."""
        return f"pid {self.pid}" if self.pid else "a container"

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, before `close` only. If the process has ended, nothing happens: the guard reports its exit."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Close the pidfd. The process goes on."""
        os.close(self.pidfd)


class Guard:
    """The guard process of one graph, and the connection to it.

    Args:
        on_exit: is called for each process that exits, with its key, pid, status and the monotonic time of the exit in seconds. The status
            is the exit code, or minus the signal's number.
        on_lost: is called if the guard exits without an order to do so.
    """

    def __init__(
        self, on_exit: Callable[[str, int, int, float], None], on_lost: Callable[[], None]
    ) -> None:
        self._on_exit = on_exit
        self._on_lost = on_lost
        self._orders: dict[str, asyncio.Future[Child]] = {}
        # The commands that run now, with their exit statuses.
        self._commands: dict[str, asyncio.Future[int]] = {}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._socket = ours
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(ours.fileno(), self._hear)

    @property
    def pid(self) -> int:
        """The guard's process id. All processes of the graph descend from it."""
        return self._process.pid

    async def spawn(
        self,
        key: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        log: str,
        preload: Sequence[str] = (),
        spaces: Sequence[str] = (),
    ) -> Child:
        """Order the guard to start a process, and wait until the process is started.

        Args:
            key: a unique name, under which the exit is reported.
            argv, env, cwd: the command line, the whole environment, and the working directory of the process.
            log: the file to which the output of the process is appended.
            preload: names of modules. If there are any, the process is forked from one that has imported them. `argv` must then run Python.
            spaces: the paths of the namespaces that the process enters. Without any, it stays in those of the harness.

        Raises:
            GraphError: if no process could be started.
        """
        wanted = [key, list(argv), dict(env), cwd, log, list(spaces)]
        order = json.dumps(["spawn", wanted, list(preload)]).encode()
        if len(order) > ORDER_MAX_BYTES:
            raise GraphError(
                f"the command line and the environment take {len(order)} bytes; "
                f"at most {ORDER_MAX_BYTES} fit. Shorten command or env."
            )
        answer: asyncio.Future[Child] = self._loop.create_future()
        self._orders[key] = answer
        while True:
            try:
                self._socket.send(order)
            except BlockingIOError:  # the socket is full: the guard is still starting processes
                await asyncio.sleep(FULL_S)
            except OSError:
                raise GraphError(GONE) from None
            else:
                return await answer

    async def begin(
        self,
        key: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        log: str,
        spaces: Sequence[str] = (),
    ) -> int:
        """Order the guard to start a command, and return its pid. Its exit is not passed to `on_exit`.

        Raises:
            GraphError: if it could not be started.
        """
        self._commands[key] = self._loop.create_future()
        try:
            child = await self.spawn(key, argv, env, cwd, log, spaces=spaces)
        except GraphError:
            del self._commands[key]
            raise
        child.close()
        return child.pid

    def owns(self, folder: str) -> None:
        """Tell the guard of a control group that it must remove at its end.

        Raises:
            GraphError: if the guard is gone.
        """
        self._say("owns", folder)

    def add_cleanup(
        self,
        key: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        log: str,
        within_s: float,
    ) -> None:
        """Let the guard run a command at its end, when all other processes have ended. It runs outside of the graph's namespaces.

        Args:
            key: a unique name, under which the command can be dropped.
            argv, env, cwd, log: as for `spawn`.
            within_s: the time limit in seconds.

        Raises:
            GraphError: if the guard is gone.
        """
        self._say("cleanup", key, [list(argv), dict(env), cwd, log, within_s])

    def drop_cleanup(self, key: str) -> None:
        """Let the guard no longer run a command at its end.

        Raises:
            GraphError: if the guard is gone.
        """
        self._say("cleanup", key, [])

    def _say(self, *message: object) -> None:
        try:
            self._socket.send(json.dumps(message).encode())
        except OSError:
            raise GraphError(GONE) from None

    async def run(
        self,
        key: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        log: str,
        within_s: float,
        on_start: Callable[[int], None],
        spaces: Sequence[str] = (),
    ) -> int | None:
        """Order the guard to run a command, and wait for its end. Its exit is not passed to `on_exit`.

        Args:
            key, argv, env, cwd, log, spaces: as for `spawn`.
            within_s: the time limit in seconds.
            on_start: gets the pid of the command.

        Returns:
            The status of the command, or None if it still runs after `within_s` seconds.

        Raises:
            GraphError: if it could not be started.
        """
        on_start(await self.begin(key, argv, env, cwd, log, spaces))
        exited = self._commands[key]
        try:
            async with asyncio.timeout(within_s):
                status: int = await exited
        except TimeoutError:
            return None
        return status

    def _hear(self) -> None:
        try:
            packet, fds, _, _ = socket.recv_fds(self._socket, guard.PACKET_MAX_BYTES, 4)
        except BlockingIOError:
            return
        except OSError:
            packet, fds = b"", []
        message: list[Any] = json.loads(packet) if packet else ["lost"]
        match message:
            case ["spawned", key, pid, at_ns]:
                self._answer(key, Child(pid, fds[0], at_ns * NANO))
            case ["refused", key, why]:
                self._answer(key, GraphError(why))
            case ["exit", key, pid, status, at_ns]:
                if (exited := self._commands.pop(key, None)) is None:
                    self._on_exit(key, pid, status, at_ns * NANO)
                elif not exited.done():
                    exited.set_result(status)
            case _:
                self._loop.remove_reader(self._socket.fileno())
                for key in list(self._orders):
                    self._answer(key, GraphError(GONE))
                for exited in self._commands.values():
                    exited.cancel()
                self._on_lost()

    def _answer(self, key: str, answer: Child | GraphError) -> None:
        order = self._orders.pop(key)
        if not order.done():
            if isinstance(answer, Child):
                order.set_result(answer)
            else:
                order.set_exception(answer)
        elif isinstance(answer, Child):
            answer.close()  # the caller was cancelled and does not take the process

    async def close(self) -> bool:
        """End every process of the graph, and the guard, even if the caller is cancelled meanwhile.

        Returns:
            True if the guard exited with status 0. Then no process of the graph is left.
        """
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        try:
            await ended(self._pidfd, END_WITHIN_S)
        finally:
            if not select.select([self._pidfd], [], [], END_WITHIN_S)[0]:
                # The guard's children die by their death signal. The supervisor kills the descendants of these children.
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
            status = self._process.wait()
        return status == 0

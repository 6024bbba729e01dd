"""The guard: the parent of all processes of one launched graph. It ends them all when the harness is gone.

The guard is a separate process in a separate session. It is started as a script without packages (`python -I -S guard.py FD`), so that it
is up within about 20 ms. It is a child subreaper: orphans of replicas become its children. It takes orders from the harness through a
socket pair. When the end of the harness closes, for any reason, the guard kills all its descendants until none is left, and exits.

Guarantees:
- An order to spawn is answered with a pid and a pidfd, or with the reason why the process could not be started. A command that does not
  exist is an error, not a process that died.
- Every exit of a spawned process is reported once, with the time at which it was seen.
- A control group that the harness has reported (`owns`) is removed once every descendant has ended. Then the guard becomes the process
  that runs the commands that undo steps (`cleanup`), unless the harness has dropped them.
- No descendant outlives the guard. If the guard itself is killed (SIGKILL), the processes that it spawned die by their death signal. The
  supervisor kills their descendants (`_left_behind`).

One exception: the guard waits for a process that the kernel cannot end (in an uninterruptible wait).

Each message is one JSON list in one packet (SOCK_SEQPACKET keeps packets apart):

    to the guard      ["spawn", order (see `_Order`), modules to preload]      ["owns", folder]      ["end"]
                      ["cleanup", key, command (see `cleanup`), or an empty list to drop it]
    from the guard    ["spawned", key, pid, at_ns] + pidfd          ["refused", key, why]
                      ["exit", key, pid, status, at_ns]

Times are `time.monotonic_ns()`, one clock for all processes of a machine. A status is an exit code, or minus a signal's number.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Final, NamedTuple, NoReturn

# The longest packet that is read. The kernel's default socket buffer takes about 200 KiB. Arguments and a clean environment need a few KiB.
PACKET_MAX_BYTES: Final = 1 << 18

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
# The first and the longest interval at which the ending guard looks for descendants again, and kills them. The death of
# a child wakes the guard sooner, by SIGCHLD. The death of a grandchild does not.
_KILL_AGAIN_S: Final = 0.002
_KILL_AGAIN_MAX_S: Final = 0.1


# ---- /proc. This section is not in `procfs`, because the guard runs without packages. `procfs` imports it from here.


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that this package uses.

    Attributes:
        state: one letter, e.g. `R` (running), `T` (stopped) or `Z` (zombie).
        start: when the process started, in clock ticks since boot. Together with the pid it is unique.
        comm: the name of the process, at most 15 bytes.
    """

    state: str
    ppid: int
    session: int
    start: int
    comm: str

    @property
    def runs(self) -> bool:
        """True unless the process is a zombie: it has ended, and its parent has not yet reaped it."""
        return self.state not in "ZX"


def stat_of(pid: int) -> Stat | None:
    """Read /proc/PID/stat. None if the process does not exist."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The name may contain spaces and parentheses. It ends at the last parenthesis of the text.
    head, _, tail = text.rpartition(b")")
    fields = tail.split()
    comm = head.partition(b"(")[2].decode("utf-8", "replace")
    return Stat(fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]), comm)


def pids() -> list[int]:
    """The pids of all processes."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children_of(pid: int) -> list[int]:
    """The children of a process, including zombies. Empty if the process does not exist."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError:
        if not os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children"):
            # A kernel without CONFIG_PROC_CHILDREN.
            return [other for other in pids() if (stat := stat_of(other)) and stat.ppid == pid]
    return found


def descendants_of(pid: int) -> list[int]:
    """All descendants of a process, including zombies. Parents come before their children."""
    found = children_of(pid)
    for child in found:  # the list grows during the loop
        found += children_of(child)
    return found


# An order to spawn: key, argv, env, cwd, log path, paths of the namespaces to enter.
_Order = tuple[str, list[str], dict[str, str], str, str, list[str]]


class _Zygote:
    """The guard's knowledge of one zygote, and the orders that wait until this zygote is ready."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.is_ready = False
        self.is_alive = True
        self.waiting: list[_Order] = []


class _Guard:
    """The state and the main loop of the guard process."""

    def __init__(self, control: socket.socket) -> None:
        self._pid = os.getpid()
        self._control = control
        self._keys: dict[int, str] = {}
        self._is_heard = True
        self._folders: list[str] = []
        self._cleanups: dict[str, list[object]] = {}
        self._zygotes: dict[tuple[str, ...], _Zygote] = {}
        os.set_inheritable(control.fileno(), False)
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._wake_fd, wake_write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write_fd, warn_on_full_buffer=False)
        for number in {signal.SIGCHLD, *_ENDING}:
            # The handler does nothing. With a handler set, Python writes the signal's number to the wake-up pipe.
            signal.signal(number, lambda _number, _frame: None)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_fd, selectors.EVENT_READ)
        self._selector.register(control, selectors.EVENT_READ)
        self._harness_fd = self._watch_harness()

    def _watch_harness(self) -> int:
        """Watch for the death of the harness. Return a pidfd of the harness, or -1 if it is gone already.

        The socket is not enough: a child that the harness forked may hold the harness's end open.
        """
        credentials = self._control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        harness_pid = int.from_bytes(credentials[:4], sys.byteorder, signed=True)
        try:
            harness_fd = os.pidfd_open(harness_pid)
        except OSError:
            return -1
        if os.getppid() != harness_pid:  # gone: another process may have its pid now
            return -1
        self._selector.register(harness_fd, selectors.EVENT_READ)
        return harness_fd

    def run(self) -> None:
        """Carry out orders until the harness is gone or says `end`, then kill every descendant."""
        is_wanted = self._harness_fd >= 0
        while is_wanted:
            ready = {key.fd for key, _ in self._selector.select()}
            is_wanted = self._harness_fd not in ready
            if self._wake_fd in ready:
                is_wanted &= not self._signals() & _ENDING
                self._reap()
            if is_wanted and self._control.fileno() in ready:
                is_wanted = self._obey()
            self._hear_zygotes(ready)
        self._kill_all()
        for folder in self._folders:
            with suppress(OSError):  # mostly removed already
                os.rmdir(folder)
        if commands := [command for command in self._cleanups.values() if command]:
            script = _beside("own/cleanup.py")
            os.execv(sys.executable, [sys.executable, "-I", "-S", script, json.dumps(commands)])

    def _signals(self) -> set[int]:
        """Return the numbers of the signals that arrived since the last call."""
        try:
            return set(os.read(self._wake_fd, 4096))
        except BlockingIOError:
            return set()

    def _obey(self) -> bool:
        """Carry out one order. False if it was `end`, or if the harness closed its end of the socket."""
        try:
            packet = self._control.recv(PACKET_MAX_BYTES)
        except ConnectionError:
            return False
        match json.loads(packet) if packet else ["end"]:
            case ["spawn", [*order], [*preload]]:
                if preload:
                    self._ask_zygote(tuple(preload), tuple(order))
                else:
                    self._spawn(tuple(order))
            case ["owns", str(folder)]:
                self._folders.append(folder)
            case ["cleanup", str(key), [*command]]:
                self._cleanups[key] = command
            case _:
                return False
        return True

    # A zygote (see `zygote`) has imported slow modules. Orders wait until their zygote is ready.

    def _ask_zygote(self, preload: tuple[str, ...], order: _Order) -> None:
        zygote = self._zygotes.get(preload)
        if zygote is None:
            zygote = self._zygotes[preload] = _Zygote(self._start_zygote(preload, order))
            self._selector.register(zygote.control, selectors.EVENT_READ)
        if zygote.is_ready:
            self._fork(zygote, order)
        else:
            zygote.waiting.append(order)

    def _start_zygote(self, preload: tuple[str, ...], order: _Order) -> socket.socket:
        _, argv, env, cwd, log, _ = order
        # No mark: /proc shows this environment for all copies of the zygote, and they belong to several replicas.
        env = {name: value for name, value in env.items() if name != "GRAPHQUAKE_REPLICA"}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.set_inheritable(theirs.fileno(), True)
        argv = [argv[0], _beside("zygote.py"), str(theirs.fileno()), *preload]
        # The zygote's errors go to the log of the first replica.
        self._spawn(("", argv, env, cwd, log, []))
        theirs.close()
        return ours

    def _hear_zygotes(self, ready: set[int]) -> None:
        for zygote in self._zygotes.values():
            if zygote.control.fileno() in ready and not zygote.is_ready:
                zygote.is_ready = True
                # A zygote reports once that it is ready. An end of file instead of the report means that it is dead.
                self._selector.unregister(zygote.control)
                zygote.is_alive = bool(zygote.control.recv(PACKET_MAX_BYTES))
                for order in zygote.waiting:
                    self._fork(zygote, order)

    def _fork(self, zygote: _Zygote, order: _Order) -> None:
        key, *rest = order
        at_ns, answer = time.monotonic_ns(), b""
        try:
            if zygote.is_alive:
                zygote.control.send(json.dumps(rest).encode())
                answer = zygote.control.recv(PACKET_MAX_BYTES)
        except OSError:
            pass
        if answer:
            self._spawned(key, int(answer), at_ns)
        else:
            # The zygote is dead. A start without it is slower, and the replica itself reports a failed import.
            self._spawn(order)

    def _tell(self, *message: str | int, fds: tuple[int, ...] = ()) -> None:
        if not self._is_heard:
            return
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], fds)
        except OSError:
            # The harness is gone. The next read of the socket meets its end of file.
            self._is_heard = False

    def _spawn(self, order: _Order) -> None:
        why_fd, why_write_fd = os.pipe2(os.O_CLOEXEC)
        # Signals are blocked, because a handler that runs in the child would write to the guard's wake-up pipe.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        at_ns = time.monotonic_ns()
        pid = os.fork()
        if pid == 0:
            self._become(order, why_write_fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.close(why_write_fd)
        with open(why_fd, "rb") as file:
            why = file.read()  # ends without text when exec closes the write end
        if why:
            os.waitpid(pid, 0)
            if order[0]:
                self._tell("refused", order[0], why.decode("utf-8", "replace"))
            return
        self._spawned(order[0], pid, at_ns)

    def _spawned(self, key: str, pid: int, at_ns: int) -> None:
        if not key:
            return
        self._keys[pid] = key
        pidfd = os.pidfd_open(pid)
        self._tell("spawned", key, pid, at_ns, fds=(pidfd,))
        os.close(pidfd)

    def _become(self, order: _Order, why_fd: int) -> NoReturn:
        """Run in the forked child: execute the ordered program, or write to `why_fd` why that failed."""
        _, argv, env, cwd, log, spaces = order
        doing = "cannot enter its network namespace"
        try:
            for path in spaces:
                if _LIBC.setns(os.open(path, os.O_RDONLY | os.O_CLOEXEC), 0):
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            os.setsid()
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != self._pid:  # the guard died before the death signal was set
                os._exit(127)
            doing = f"cannot write {log}"
            null_fd = os.open(os.devnull, os.O_RDONLY)
            log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            for fd, standard in ((null_fd, 0), (log_fd, 1), (log_fd, 2)):
                os.dup2(fd, standard)
            doing = f"cannot change to the folder {cwd}"
            os.chdir(cwd)
            doing = f'cannot run "{argv[0]}"'
            # Python ignores SIGPIPE, and the parent of the harness may have ignored other signals.
            # Without a reset, the program would inherit the ignored signals and the mask.
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.execvpe(argv[0], argv, env)
        except (OSError, ValueError) as error:
            what = error.strerror if isinstance(error, OSError) else str(error)
            os.write(why_fd, f"{doing}: {what}".encode("utf-8", "backslashreplace"))
        finally:
            os._exit(127)

    def _reap(self) -> bool:
        """Reap and report every ended child, including orphans. False if no child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            at_ns = time.monotonic_ns()
            key = self._keys.pop(pid, "")
            if key:
                self._tell("exit", key, pid, os.waitstatus_to_exitcode(status), at_ns)

    def _kill_all(self) -> None:
        """Send SIGKILL to all descendants, again and again until none is left."""
        for fd in set(self._selector.get_map()) - {self._wake_fd}:
            self._selector.unregister(fd)
        pause_s = _KILL_AGAIN_S
        while self._reap():
            for pid in descendants_of(self._pid):
                _kill(pid)
            self._selector.select(pause_s)
            self._signals()
            pause_s = min(pause_s * 1.2, _KILL_AGAIN_MAX_S)


def _beside(name: str) -> str:
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), name)


def _kill(pid: int) -> None:
    """Send SIGKILL to a process if it is still a descendant of the guard."""
    with suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            # The process may have ended since /proc was read, and its pid may belong to another one by now.
            if is_descendant(pid, os.getpid()):
                # SIGKILL also ends a stopped process. After a SIGCONT, it would run once more before it ends.
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


def is_descendant(pid: int, ancestor: int) -> bool:
    """True if the process `pid` is a child of `ancestor`, or a child of a child, and so on."""
    while pid > 1 and (stat := stat_of(pid)) is not None:
        if stat.ppid == ancestor:
            return True
        pid = stat.ppid
    return False


def main() -> NoReturn:
    """Run the guard. The argument of the script is the file descriptor of the guard's end of the socket pair."""
    _Guard(socket.socket(fileno=int(sys.argv[1]))).run()
    # Nothing is left to clean up, and the harness waits for this exit.
    os._exit(0)


if __name__ == "__main__":
    main()

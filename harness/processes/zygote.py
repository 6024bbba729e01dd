"""A process that has imported slow modules, such as torch, and forks replicas from itself within milliseconds.

The guard runs it as a script (`python zygote.py FD MODULE...`) for roles whose graph file says `preload`. The zygote answers each order
with the pid of a new process. That process is a child of the guard, in a separate session. It runs the ordered module or script as
`python` would. The imported modules must not start threads or use a GPU, because neither survives a fork.

Each message is one JSON value in one packet. The zygote sends `0` once, when everything is imported. An order is
`[argv, env, cwd, log path, namespaces to enter]`, and its answer is the pid. /proc shows the zygote's environment for the new processes,
too. So their sessions, not their marks, tell which replica they belong to.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import time
from typing import Final, NoReturn

# The name of a zygote in the kernel, by which `process_tree` recognizes it.
NAME: Final = "gq-zygote"
PACKET_MAX_BYTES: Final = 1 << 18
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15


def main() -> None:
    """Import the modules. Then fork one process each time the guard process asks for one, until the guard has ended."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_NAME, NAME.encode(), 0, 0, 0)
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    guard = os.getppid()
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    for module in sys.argv[2:]:
        importlib.import_module(module)
    control.send(b"0")
    while packet := control.recv(PACKET_MAX_BYTES):
        read, write = os.pipe()
        middle = os.fork()
        if middle == 0:
            # This middle process forks the ordered process, and exits at once. The ordered process then becomes a child of the guard.
            copy = os.fork()
            if copy:
                os.write(write, str(copy).encode())
                os._exit(0)
            control.close()
            os.close(read)
            os.close(write)
            while os.getppid() != guard:
                time.sleep(0.0002)
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            prctl(_PR_SET_NAME, b"python", 0, 0, 0)
            _become(*json.loads(packet))
        os.close(write)
        pid = os.read(read, 32)
        os.close(read)
        os.waitpid(middle, 0)
        control.send(pid)


def _become(
    argv: list[str], env: dict[str, str], cwd: str, log: str, spaces: list[str]
) -> NoReturn:
    """Run the ordered module or script in this process, and then end the process as `python` would."""
    os.setsid()
    null_fd = os.open(os.devnull, os.O_RDONLY)
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for fd, standard in ((null_fd, 0), (log_fd, 1), (log_fd, 2)):
        os.dup2(fd, standard)
    libc = ctypes.CDLL(None, use_errno=True)
    for path in spaces:
        if libc.setns(os.open(path, os.O_RDONLY | os.O_CLOEXEC), 0):
            sys.exit(f"cannot enter its network namespace: {os.strerror(ctypes.get_errno())}")
    os.chdir(cwd)
    # Variables that stay the same are not touched. setproctitle finds the memory of the title through the first of them, and a child that
    # can't set its title is not found by its name.
    for name in os.environ.keys() - env.keys():
        del os.environ[name]
    for name, value in env.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    if argv[1] == "-m":
        sys.argv, sys.path[0] = argv[2:], cwd
        runpy.run_module(argv[2], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = argv[1:], os.path.dirname(os.path.abspath(argv[1]))
        runpy.run_path(argv[1], run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    main()

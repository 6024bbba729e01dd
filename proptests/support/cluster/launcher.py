"""Start a container's main process as pid 1 of its own PID namespace, in a control group and a network, and exit as it does.

A script of its own, which imports little. `unshare` of util-linux 2.38 does the same, but does not tell which signal ended the process.
The exit status is that of the process, or 128 and the number of the signal that ended it. The process dies with this script.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
PR_SET_PDEATHSIG = 1


def checked(result: int) -> None:
    """Raise the error that a call of the C library has left."""
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main(cgroup: str, shares_pids: str, network: str, *argv: str) -> int:
    """Start the process and wait for it.

    Args:
        cgroup: the folders of its control groups, with colons between them, or an empty text for none.
        shares_pids: `yes` if it sees the processes of the host.
        network: the path of its network namespace, or an empty text for that of the host.
        argv: the command line.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it dies with the cluster
    if network:
        with open(network, "rb") as space:  # noqa: PTH123 # imports little
            checked(libc.setns(space.fileno(), CLONE_NEWNET))
    if shares_pids != "yes":
        checked(libc.unshare(CLONE_NEWNS | CLONE_NEWPID))
        checked(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    pid = os.fork()
    if not pid:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if shares_pids != "yes":
            checked(libc.mount(b"proc", b"/proc", b"proc", 0, None))
        for folder in filter(None, cgroup.split(":")):
            with open(f"{folder}/cgroup.procs", "w", encoding="ascii") as procs:  # noqa: PTH123 # imports little
                procs.write("0")
        try:
            os.execvpe(argv[0], argv, os.environ)  # noqa: S606 # this is what it is for
        except OSError as error:
            print(f"{argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
            os._exit(127)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""A private disk: a tmpfs of limited size in a mount namespace that only one graph's processes see. Run as a script without packages.

    private_disk.py hold FOLDER MIB ...          mount a disk at each folder, say `ready`, and keep the namespace until the end
    private_disk.py enter PID CWD COMMAND ...    run a command in the namespace of a holder
    private_disk.py fill FOLDER SECONDS          write until the disk is full, see ENOSPC, and keep it full for a time
    private_disk.py free FOLDER                  remove the files of `fill`
    private_disk.py try FOLDER                   fail with a reason if this machine or user can't mount a private disk

Nothing is mounted in the machine's own namespace. The disks are gone when the last process of the namespace has ended. Without root, the
holder makes a user namespace, too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Final, NoReturn

_NEWNS: Final = 0x00020000
_NEWUSER: Final = 0x10000000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
MIB: Final = 1 << 20
FILL_EVERY_S: Final = 0.005
FULL: Final = ".graphquake-full"


def hold(disks: list[tuple[str, int]]) -> None:
    """Make the namespace of this process, and mount the disks. Each gets a folder `home` and a folder `tmp`.

    Raises:
        OSError: if this machine or this user can't.
    """
    uid, gid = os.getuid(), os.getgid()
    try:
        _checked(_LIBC.unshare(_NEWNS))
    except PermissionError:
        _checked(_LIBC.unshare(_NEWUSER | _NEWNS))
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            _write(f"/proc/self/{name}", text)
    _checked(_LIBC.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    for folder, mib in disks:
        os.makedirs(folder, exist_ok=True)
        options = f"size={mib}m,mode=700".encode()
        _checked(_LIBC.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options))
        for name in ("home", "tmp"):
            os.mkdir(os.path.join(folder, name))


def enter(pid: str, cwd: str, command: list[str]) -> NoReturn:
    """Enter the namespaces of a holder, and run a command there.

    Raises:
        OSError: if the holder is gone, or the command can't be run.
    """
    for name, flag in (("user", _NEWUSER), ("mnt", _NEWNS)):
        if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"):
            fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            _checked(_LIBC.setns(fd, flag))
    os.chdir(cwd)
    os.execvp(command[0], command)


def fill(folder: str) -> str:
    """Fill a disk. Return the number of bytes that were written, and the error of the last attempt, in words.

    Raises:
        RuntimeError: if the disk is larger than it should be.
    """
    written, chunk = 0, MIB
    fd = os.open(os.path.join(folder, FULL), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for _ in range(1 << 20):
        try:
            written += os.write(fd, bytes(chunk))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            if chunk == 1:
                return f"wrote {written} bytes; one more byte failed: {error.strerror} (ENOSPC)"
            chunk = max(1, chunk // 16)
    raise RuntimeError("the disk is not full after 1 TiB")


def keep_full(folder: str, for_s: float) -> None:
    """For a time, fill the space that other processes free."""
    fd = os.open(os.path.join(folder, FULL), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    end_s = time.monotonic() + for_s
    while time.monotonic() < end_s:
        with suppress(OSError):
            os.write(fd, bytes(MIB))
        time.sleep(FILL_EVERY_S)


def free(folder: str) -> str:
    """Remove the files of `fill`. Return the free space in words."""
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, FULL))
    seen = os.statvfs(folder)
    if not seen.f_bavail:
        raise RuntimeError("the disk is still full")
    return f"{seen.f_bavail * seen.f_frsize} bytes are free again"


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main(arguments: list[str]) -> None:
    """Carry out the command line."""
    match arguments:
        case ["hold", *rest]:
            hold([(folder, int(mib)) for folder, mib in zip(rest[::2], rest[1::2], strict=True)])
            print("ready", flush=True)
            while True:
                signal.pause()
        case ["enter", pid, cwd, *command]:
            enter(pid, cwd, command)
        case ["fill", folder, for_s]:
            print(fill(folder), flush=True)
            keep_full(folder, float(for_s))
        case ["free", folder]:
            print(free(folder))
        case ["try", folder]:
            hold([(folder, 1)])
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")

"""One container of the test cluster: a local process that is pid 1 of its own PID namespace, and in a control group of its own.

So signals behave as in a real container: SIGKILL and SIGSTOP from within do nothing to pid 1, and SIGTERM does something only if pid 1
handles it. From the host all of them work. The end of pid 1 ends every process of the container.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import secrets
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from support.cluster.store import now_text

LAUNCHER = Path(__file__).with_name("launcher.py")


def _remove(root: Path) -> None:
    """Remove the control groups of this process, as far as no process is in them any more."""
    for folder in (*root.glob("*/"), root):
        with suppress(OSError):
            folder.rmdir()


@cache
def controllers() -> tuple[Path, ...]:
    """The folders for the control groups that limit CPU and memory. Version 1 has one for each, and version 2 has one for all."""
    root = cgroup_root()
    if root is None:
        return ()
    with suppress(OSError):
        (root / "cgroup.subtree_control").write_text("+cpu +memory", encoding="ascii")
        return (root,)
    found = [root]
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup" and {"cpu", "memory"} & {*options.split(",")}:
            folder = Path(where) / root.name
            with suppress(OSError):
                folder.mkdir(exist_ok=True)
                atexit.register(_remove, folder)
                found.append(folder)
    return tuple(found)


@cache
def cgroup_root() -> Path | None:
    """A folder for the control groups of this process' containers, or None if this machine does not allow that."""
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, where, kind, *_ = line.split()
        folder = Path(where) / f"graphquake-test-{os.getpid()}"
        if kind == "cgroup2":
            with suppress(OSError):
                folder.mkdir(exist_ok=True)
                atexit.register(_remove, folder)
                return folder
    return None


@dataclass
class Container:
    """The present process of a container, and what its status shows.

    Attributes:
        pid: the pid of the container's main process, as the host sees it. 0 while it does not run.
        ready: true if the readiness probe says so, or if there is none.
        network: the path of the pod's network namespace, or an empty text for that of the host.
        last: the end of the process before, as `lastState.terminated` shows it.
        waiting: the reason why no process runs now.
    """

    name: str
    folder: Path
    shares_pids: bool = False
    id: str = ""
    restarts: int = -1
    pid: int = 0
    ready: bool = False
    started_at: str = ""
    waiting: str = "ContainerCreating"
    network: str = ""
    last: dict[str, object] = field(default_factory=dict)
    over: dict[str, object] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> Path:
        """The log of the present process."""
        return self.folder / f"{self.restarts}.log"

    @property
    def cgroups(self) -> list[Path]:
        """The control groups of the present process, one for each hierarchy."""
        return [root / f"cri-containerd-{self.id}.scope" for root in controllers()]

    async def start(self, argv: list[str], env: dict[str, str], cwd: str | None) -> None:
        """Start the next process, and wait until its pid is known."""
        self.id, self.restarts = secrets.token_hex(32), self.restarts + 1
        self.folder.mkdir(parents=True, exist_ok=True)
        for folder in self.cgroups:
            folder.mkdir()
        launch = [sys.executable, "-I", "-S", str(LAUNCHER), ":".join(map(str, self.cgroups))]
        argv = [*launch, "yes" if self.shares_pids else "no", self.network, *argv]
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *argv, env=env, cwd=cwd, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.pid = await self._first_child()
        self.started_at, self.waiting, self.over = now_text(), "", {}

    async def _first_child(self) -> int:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        while self.process.returncode is None:
            with suppress(OSError):
                if found := children.read_text(encoding="utf-8").split():
                    return int(found[0])
            await asyncio.sleep(0.005)
        return 0

    async def ended(self) -> int:
        """Wait for the end of the process. Return its exit code: 128 and the number of the signal that ended it."""
        assert self.process is not None
        code = await self.process.wait()
        self.over = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "startedAt": self.started_at,
            "finishedAt": now_text(),
            "containerID": f"containerd://{self.id}",
        }
        self.pid, self.ready = 0, False
        self._tidy()
        return code

    def _tidy(self) -> None:
        for folder in self.cgroups:
            with suppress(OSError):
                folder.rmdir()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal from the host to the main process."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def inside(self, argv: list[str]) -> list[str]:
        """The command line that runs a command within the container."""
        spaces = ["-p", "-m", *(["-n"] if self.network else [])]
        return argv if self.shares_pids else ["nsenter", "-t", str(self.pid), *spaces, *argv]

    def status(self) -> dict[str, object]:
        """The entry of `containerStatuses`."""
        running = {"running": {"startedAt": self.started_at}} if self.pid else {}
        ended = {"terminated": self.over} if self.over and not self.waiting else {}
        waiting = {"waiting": {"reason": self.waiting}} if self.waiting else {}
        shown = self.id and f"containerd://{self.id}"
        return {
            "name": self.name,
            "ready": self.ready,
            "started": bool(self.pid),
            "restartCount": max(0, self.restarts),
            "image": sys.platform,
            "imageID": "",
            "containerID": shown,
            "state": running or waiting or ended,
            "lastState": {"terminated": self.last} if self.last else {},
        }

"""The agent: a program on a node of the cluster that kills, stops and squeezes containers, and disturbs the network of pods.

It needs the standard library only, and Python 3.11 or later. The harness sends it to a pod that sees the processes of its node (see
`bundle`), and runs it twice:

- `keep FILE` is the pod's own process. It ends when nobody has touched FILE for `KEPT_S` seconds, so a forgotten pod does not stay.
- `serve FILE` talks to the harness: one JSON document a line, both ways. It touches FILE as long as the harness talks.

If the harness says nothing for `SILENCE_S` seconds, or its connection ends, everything that was stopped goes on, each limit is as
before, every fault of the network ends, and so does the program.
A process belongs to a container if its control group has the container's id. It is known by its pid and its start, and its end is seen
through a pidfd. So no signal reaches another process that was given the same pid later.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from graphquake.harness.kubernetes.node.container_limits import Limits
from graphquake.harness.kubernetes.node.pod_network import PodNetwork, space_of

KEPT_S = 30.0
SILENCE_S = 3.0
# The time limits for a process to end after SIGKILL, and to stop or go on.
KILL_WITHIN_S = 5.0
SWITCH_WITHIN_S = 2.0
POLL_S = 0.002
# The places in /proc/PID/stat, after the name, of the state and of the start.
STATE, START = 0, 19


def stat_of(pid: int) -> tuple[str, str] | None:
    """Return the state and the start of a process, or None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            rest = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return (rest[STATE], rest[START]) if rest[STATE] not in "ZX" else None


def text_of(pid: int, name: str) -> str:
    """Return a file of /proc about a process, or nothing if it is gone."""
    try:
        with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def members(container: str) -> dict[int, str]:
    """Return the processes of a container: pid -> start."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    found = {pid: stat_of(pid) for pid in pids if container in text_of(pid, "cgroup")}
    return {pid: stat[1] for pid, stat in found.items() if stat}


def main_of(pids: dict[int, str]) -> int | None:
    """Return the process that is the first one of the container's PID namespace, or None."""
    for pid in pids:
        for line in text_of(pid, "status").splitlines():
            if line.startswith("NSpid:") and line.split()[-1] == "1":
                return pid
    return None


def is_called(pid: int, name: str) -> bool:
    """True if a process has this name, or its command line begins with it."""
    command = text_of(pid, "cmdline").replace("\0", " ")
    return text_of(pid, "comm").strip() == name or command.startswith(name)


def aimed_at(asked: dict[str, Any]) -> dict[int, str] | str:
    """Return the processes that an order is about, or a text that says why there are none."""
    pids = members(asked["container"])
    main = main_of(pids)
    if main is None:
        return "no process of the container runs"
    if "child" not in asked:
        return {main: pids[main]} if asked.get("main") else pids
    called = sorted(
        (int(pids[pid]), pid) for pid in pids if pid != main and is_called(pid, asked["child"])
    )
    if asked["index"] >= len(called):
        return f"the container has {len(called)} child processes called {asked['child']}"
    pid = called[asked["index"]][1]
    return {pid: pids[pid]}


def wait_until(holds: Callable[[], bool], within_s: float) -> bool:
    """Wait until a condition holds. Return whether it does."""
    until_s = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > until_s:
            return False
        time.sleep(POLL_S)
    return True


def send(pid: int, start: str, number: int) -> int | None:
    """Send a signal to a process, if it is still the same one. Return its pidfd, or None if it is gone."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    stat = stat_of(pid)
    if stat is None or stat[1] != start:
        os.close(handle)
        return None
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, number)
    return handle


class Agent:
    """Carries out orders. `stopped` has the processes that are to go on later: pid -> start."""

    def __init__(self) -> None:
        self.stopped: dict[int, str] = {}
        self._limits = Limits()
        self._networks: dict[str, PodNetwork] = {}
        self._says = threading.Lock()

    def kill(self, asked: dict[str, Any]) -> tuple[bool, str]:
        """Send SIGKILL, and wait until the processes are gone."""
        targets = aimed_at(asked)
        if isinstance(targets, str):
            return False, targets
        begun_s = time.monotonic()
        sent = [send(pid, start, signal.SIGKILL) for pid, start in targets.items()]
        handles = [one for one in sent if one is not None]
        poll = select.poll()
        for one in handles:
            poll.register(one, select.POLLIN)
        left = set(handles)

        def gone() -> bool:
            left.difference_update(number for number, _ in poll.poll(0))
            return not left

        ended = wait_until(gone, KILL_WITHIN_S)
        for one in handles:
            os.close(one)
        pids = ", ".join(str(pid) for pid in targets)
        took_ms = (time.monotonic() - begun_s) * 1e3
        if not ended:
            return False, f"SIGKILL did not end pid {pids} within {KILL_WITHIN_S:g} s"
        return True, f"pid {pids} of the node gone {took_ms:.0f} ms after SIGKILL"

    def stall(self, asked: dict[str, Any]) -> tuple[bool, str]:
        """Send SIGSTOP, and wait until the processes are stopped."""
        targets = aimed_at(asked)
        if isinstance(targets, str):
            return False, targets
        is_whole = "child" not in asked and not asked.get("main")

        def stop() -> bool:
            # New processes may come until all are stopped.
            now = members(asked["container"]) if is_whole else targets
            left = [pid for pid in now if (stat_of(pid) or "T")[0] != "T"]
            for pid in left:
                self.stopped[pid] = now[pid]
                handle = send(pid, now[pid], signal.SIGSTOP)
                if handle is not None:
                    os.close(handle)
            return not left

        if not wait_until(stop, SWITCH_WITHIN_S):
            self.go_on()
            return False, f"SIGSTOP did not stop every process within {SWITCH_WITHIN_S:g} s"
        return True, f"pid {', '.join(str(pid) for pid in targets)} of the node stopped"

    def resume(self, asked: dict[str, Any]) -> tuple[bool, str]:
        """Send SIGCONT to what was stopped of a container, and wait until it goes on."""
        container = asked["container"]
        pids = {p: start for p, start in self.stopped.items() if container in text_of(p, "cgroup")}
        return self.go_on(pids)

    def go_on(self, pids: dict[int, str] | None = None) -> tuple[bool, str]:
        """Send SIGCONT to some of the stopped processes, or to all."""
        pids = dict(self.stopped) if pids is None else pids
        for pid, start in pids.items():
            handle = send(pid, start, signal.SIGCONT)
            if handle is not None:
                os.close(handle)
            self.stopped.pop(pid, None)

        def goes_on() -> bool:
            return all((stat_of(pid) or "?")[0] != "T" for pid in pids)

        if not wait_until(goes_on, SWITCH_WITHIN_S):
            return False, "a process is still stopped after SIGCONT"
        return True, f"{len(pids)} processes go on"

    def network(self, asked: dict[str, Any]) -> PodNetwork | str:
        """Return the network of the pod that an order is about, or a text that says why there is none."""
        known = self._networks.get(asked["pod"])
        if asked["do"] not in {"can", "begin"} and known is not None:
            return known
        main = main_of(members(asked["container"]))
        if main is None:
            return "no process of the container runs"
        if known is not None and known.works and known.space == space_of(main):
            return known
        if known is not None:
            known.close()
        made = self._networks[asked["pod"]] = PodNetwork(main, asked["address"], self.say)
        return made

    def say(self, number: int, *, ok: bool, proof: str = "", result: Any = None) -> None:
        """Send an answer. Several threads do so."""
        said = {"id": number, "ok": ok, "proof": proof, "result": result}
        left = json.dumps(said).encode() + b"\n"
        with self._says:
            while left:
                left = left[os.write(1, left) :]

    def obey(self, line: bytes) -> None:
        """Carry out one order, and send the answer. An order about the network is answered later."""
        asked = json.loads(line)
        orders = {
            "kill": self.kill,
            "stall": self.stall,
            "resume": self.resume,
            "squeeze": self._limits.squeeze,
            "release": self._limits.release,
        }
        result = None
        try:
            if "pod" in asked:
                network = self.network(asked)
                if not isinstance(network, str):
                    network.put(asked)
                    return
                ok, proof = False, network
            elif asked["do"] == "met":
                ok, proof, result = True, "", self._limits.met(asked)
            else:
                ok, proof = orders[asked["do"]](asked) if asked["do"] in orders else (True, "")
        except OSError as error:
            ok, proof = False, f"{asked['do']}: {error}"
        self.say(asked["id"], ok=ok, proof=proof, result=result)

    def undo(self) -> None:
        """Undo everything."""
        self.go_on()
        self._limits.undo()
        for one in self._networks.values():
            one.close()


def serve(path: str) -> None:
    """Carry out the orders of the standard input, until it ends or is silent for too long."""
    agent, rest = Agent(), b""
    try:
        while select.select([0], [], [], SILENCE_S)[0]:
            data = os.read(0, 1 << 16)
            if not data:
                return
            with open(path, "w", encoding="utf-8"):
                pass
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                agent.obey(line)
    finally:
        agent.undo()


def keep(path: str) -> None:
    """Stay until nobody has touched the file for a while."""
    with open(path, "w", encoding="utf-8"):
        pass
    while time.time() - os.stat(path).st_mtime < KEPT_S:
        time.sleep(1)
    os.unlink(path)


def main() -> None:
    """Run the program, as its arguments say."""
    {"keep": keep, "serve": serve}[sys.argv[1]](sys.argv[2])


if __name__ == "__main__":
    main()

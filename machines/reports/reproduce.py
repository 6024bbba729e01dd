"""Reproduce a bug of a serving graph: start its processes, send requests, do the steps, and look at the answers.

`graphquake export` writes this file for one case, with `CASE` filled in. It needs Python 3.9 and Linux, and nothing else but the programs
that it starts. It exits with 1 if the bug shows, and with 0 if it does not.

If a step disturbs the network, the file `reproduce_network.py` lies beside this one, and tells what it needs.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

CASE: dict[str, Any] = {}

# The most requests that are listed at the end.
LINES = 10
HERE = Path(__file__).resolve().parent
WORK = Path(tempfile.mkdtemp(prefix="reproduce-"))


def filled(text: str) -> str:
    """Fill in the folder of this run, the folder of this file, and the Python interpreter."""
    return (
        text.replace("@WORK@", str(WORK))
        .replace("@HERE@", str(HERE))
        .replace("@PYTHON@", sys.executable)
    )


def get(url: str) -> str | None:
    """Return the text of a page, or None if it is not there."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - the case has only http
            text: str = answer.read().decode()
            return text
    except OSError:
        return None


class Replica:
    """A replica of the graph: a process and its children. They have a process session of their own, so signals reach all of them."""

    def __init__(self, name: str, about: dict[str, Any]) -> None:
        self.name, self.about = name, about
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process. Its output goes to a file in the folder of the run."""
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(WORK),
            "TMPDIR": str(WORK),
            "LANG": "C.UTF-8",
        }
        env.update({key: filled(value) for key, value in self.about["env"].items()})
        with (WORK / f"{self.name.replace(' ', '-')}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*NETWORK.inside(self.name), *shlex.split(filled(self.about["command"]))],
                env=env, stdout=log, stderr=log, cwd=WORK, start_new_session=True,
            )  # fmt: skip

    @property
    def alive(self) -> bool:
        """True while the main process runs."""
        return self.process is not None and self.process.poll() is None

    def send(self, number: int, child: str = "") -> None:
        """Send a signal to all processes of the replica, or to those whose command line matches `child`."""
        for pid in self.pids():
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if not child or re.search(child, line) or re.search(child, name):
                os.kill(pid, number)

    def pids(self) -> list[int]:
        """The processes of the session."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (OSError, ValueError):
                continue
            if self.process is not None and fields[3] == str(self.process.pid) and fields[0] != "Z":
                found.append(int(entry.name))
        return found

    def ready(self) -> bool:
        """True if the readiness probe answers, or if there is none."""
        probe = self.about["ready"]
        if not self.alive or probe is None:
            return self.alive
        text = get(probe["get"])
        return text is not None and bool(re.search(probe["body"], text))


class NoNetwork:
    """All processes use the network of the machine. Its counterpart is `Network` in `reproduce_network.py`."""

    def enter(self, work: Path) -> None:
        """Stay where the script is."""

    def connect(self) -> None:
        """Connect nothing."""

    def inside(self, name: str) -> list[str]:  # noqa: ARG002 - see Network
        """No words before the command of a replica."""
        return []

    def close(self) -> None:
        """Leave nothing behind."""


def network() -> Any:
    """The network namespaces of the graph, or none."""
    if not CASE.get("network"):
        return NoNetwork()
    addresses = {name: about["address"] for name, about in CASE["replicas"].items()}
    # The file lies beside this one only if it is needed.
    return importlib.import_module("reproduce_network").Network(CASE["network"], addresses)


NETWORK = network()
REPLICAS = {name: Replica(name, about) for name, about in CASE.get("replicas", {}).items()}
ZERO_S = time.monotonic()
# Each finished request: the time at which it was sent, its duration, the longest time without a byte, and its mistake.
DONE: list[tuple[float, float, float, str]] = []
# The first answer to each body. Later ones must be equal.
RIGHT: dict[int, str] = {}
OVER = threading.Event()


def now_s() -> float:
    """Seconds since the start of the script."""
    return time.monotonic() - ZERO_S


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"{now_s():7.2f} s  {text}", flush=True)


def ask(number: int, leaves: bool = False) -> None:  # noqa: FBT001, FBT002 - a plain script
    """Send one request, and note how it went."""
    load = CASE["load"]
    place = number % len(load["bodies"])
    # A client leaves after the first token, which only a stream shows.
    stream = leaves or (load["one_stream_in"] > 0 and number % load["one_stream_in"] == 0)
    body = dict(load["bodies"][place], stream=stream)
    sent_s = last_s = now_s()
    silent_s, wrong, raw = 0.0, "", b""
    try:
        request = urllib.request.Request(  # noqa: S310 - the case has only http
            load["url"], json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=load["deadline_s"]) as answer:  # noqa: S310
            while part := answer.read1():
                silent_s, last_s = max(silent_s, now_s() - last_s), now_s()
                raw += part
                if leaves:
                    return
        wrong = check(place, raw, stream)
    except urllib.error.HTTPError as error:
        wrong = f"HTTP {error.code}"
    except OSError as error:
        wrong = type(getattr(error, "reason", error)).__name__
    silent_s = max(silent_s, now_s() - last_s)
    DONE.append((sent_s, now_s() - sent_s, silent_s, wrong))


def check(place: int, raw: bytes, stream: bool) -> str:  # noqa: FBT001 - a plain script
    """Return the mistake in an answer, in words. If answers are known to be exact, each must equal the first one to this body."""
    try:
        if stream:
            lines = [line[5:].strip() for line in raw.split(b"\n") if line.startswith(b"data:")]
            if not lines or lines[-1] != b"[DONE]":
                return "stream cut"
            parts = [json.loads(line) for line in lines[:-1]]
        else:
            parts = [json.loads(raw)]
        if any(part.get("error") for part in parts):
            return "error in the answer"
        choices = [choice for part in parts for choice in part.get("choices", ())]
    except ValueError:
        return "no JSON"
    if not CASE["load"]["exact"]:
        return ""
    text = "".join(
        choice.get("text")
        or (choice.get("delta") or choice.get("message") or {}).get("content")
        or ""
        for choice in choices
    )
    return "" if RIGHT.setdefault(place, text) == text else "another text than before"


def burst(count: int, over_s: float, leave: float, first: int) -> None:
    """Send many requests, some of whose clients leave after the first bytes."""
    for number in range(count):
        threading.Thread(
            target=ask, args=(first + number, number < leave * count), daemon=True
        ).start()
        time.sleep(over_s / count)


def send_load() -> None:
    """Send requests at the rate of the case, until the script is over."""
    number = 0
    while not OVER.wait(1 / CASE["load"]["rate_per_s"]):
        threading.Thread(target=ask, args=(number,), daemon=True).start()
        number += 1


def bring_back() -> None:
    """Restart dead replicas, if the graph's supervisor would."""
    while CASE["restart"] and not OVER.wait(0.05):
        for replica in REPLICAS.values():
            if not replica.alive:
                replica.start()


def wait_ready(names: list[str]) -> None:
    """Wait until these replicas are ready.

    Raises:
        SystemExit: if one is not ready in time.
    """
    until_s = now_s() + CASE["ready_within_s"]
    while not all(REPLICAS[name].ready() for name in names):
        if now_s() > until_s:
            raise SystemExit(f"not ready within {CASE['ready_within_s']} s; logs: {WORK}")
        time.sleep(0.05)


def do(step: list[Any]) -> None:
    """Carry out one step of the plan."""
    verb, *rest = step
    say(" ".join(map(str, step)))
    if verb == "wait":
        time.sleep(rest[0])
    elif verb == "ready":
        wait_ready([name for name, one in REPLICAS.items() if one.alive])
    elif verb == "burst":
        threading.Thread(target=burst, args=(*rest, 100_000), daemon=True).start()
    elif verb == "respawn":
        REPLICAS[rest[0]].start()
    elif verb == "stall":
        replica = REPLICAS[rest[0]]
        replica.send(signal.SIGSTOP)
        threading.Timer(rest[1], replica.send, (signal.SIGCONT,)).start()
    elif verb in ("cut", "reset"):
        threading.Thread(target=getattr(NETWORK, verb), args=rest, daemon=True).start()
    else:
        number = signal.SIGTERM if verb == "terminate" else signal.SIGKILL
        REPLICAS[rest[0]].send(number, rest[1] if len(rest) > 1 else "")


def wrong_lists() -> list[str]:
    """The lists that do not name as many replicas as live, in words."""
    found = []
    for one in CASE["lists"]:
        live = sum(REPLICAS[name].alive for name in one["names"])
        text = get(one["get"])
        listed = "nothing" if text is None else len(re.findall(one["item"], text))
        if listed != live:
            found.append(f"{one['get']} lists {listed}, and {live} live")
    return found


def shows(fault_s: float) -> list[str]:
    """The requests that show the bug, in words."""
    promise, bound_s = CASE["promise"], CASE["bound_s"]
    found = []
    for sent_s, took_s, silent_s, wrong in sorted(DONE):
        after_s = sent_s - fault_s
        at = f"sent {after_s:+.2f} s from the end of the last step: {wrong or 'right'} after {took_s:.2f} s"
        at += f", {silent_s:.2f} s without a byte" if promise == "ends" else ""
        if (
            (promise == "ends" and silent_s > bound_s)
            or (
                promise == "answers"
                and wrong in ("another text than before", "stream cut", "no JSON")
            )
            or (promise in ("error_window", "recovery") and wrong and after_s > bound_s)
        ):
            found.append(at)
    return found


def start() -> None:
    """Write the files of the graph, and start its processes in their order."""
    for name, text in CASE["files"].items():
        path = Path(filled(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(filled(text))
    for names in CASE["start"]:
        for name in names:
            REPLICAS[name].start()
        wait_ready(names)
    say("ready")


def do_plan() -> float:
    """Do the steps, and heal the graph. Return the time at which the last step was over."""
    fault_s = now_s()
    for step in CASE["steps"]:
        do(step)
        if step[0] not in ("wait", "ready"):
            fault_s = now_s() + (step[2] if step[0] in ("stall", "cut", "reset") else 0.0)
    time.sleep(max(0.0, fault_s - now_s()))
    for replica in REPLICAS.values():
        if CASE["heal"] and not replica.alive:
            say(f"start {replica.name} again")
            replica.start()
    return fault_s


def main() -> int:
    """Start the graph, do the steps under load, and say whether the bug shows."""
    NETWORK.enter(WORK)
    print(CASE["about"], f"\nlogs: {WORK}", flush=True)
    try:
        NETWORK.connect()
        start()
        for work in (send_load, bring_back):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(2)
        fault_s = do_plan()
        time.sleep(CASE["stay_s"])
        found = wrong_lists() if CASE["promise"] == "views_agree" else []
        OVER.set()
        time.sleep(CASE["load"]["deadline_s"])
    finally:
        OVER.set()
        for replica in REPLICAS.values():
            replica.send(signal.SIGKILL)
        NETWORK.close()
    failed = sum(bool(wrong) for *_, wrong in DONE)
    say(f"{len(DONE)} requests, {failed} failed")
    found += shows(fault_s)
    more = [f"and {len(found) - LINES} more"] if len(found) > LINES else []
    print("\n".join(["THE BUG SHOWS" if found else "the bug does not show", *found[:LINES], *more]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

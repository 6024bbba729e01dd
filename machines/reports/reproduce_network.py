"""The network of a graph whose bug shows only if the network is disturbed.

Each replica gets a network namespace of its own, and so does the script `reproduce.py`. The network of the machine stays as it is. This
needs `unshare` and `nsenter` (util-linux), `ip` and `ss` (iproute2), and root or user namespaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

# Set while the script runs in its own namespace.
INSIDE = "REPRODUCE_INSIDE"


def run(*argv: str) -> None:
    """Run a command."""
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


class Network:
    """The network namespaces of the replicas, connected by a bridge.

    Args:
        here: the address of the script, from which the requests come.
        addresses: the address of each replica.
    """

    def __init__(self, here: str, addresses: dict[str, str]) -> None:
        self.here, self.addresses = here, addresses
        # Each process holds the namespace of a replica.
        self.holders: dict[str, subprocess.Popen[bytes]] = {}

    def enter(self, work: Path) -> None:
        """Begin the script again, in a namespace of its own.

        Args:
            work: the folder of this run. The script makes another one when it begins again.

        Raises:
            SystemExit: if a program is missing.
        """
        if INSIDE in os.environ:
            return
        for name in ("unshare", "nsenter", "ip", "ss"):
            if shutil.which(name) is None:
                raise SystemExit(f"{name} is missing: install util-linux and iproute2")
        work.rmdir()
        os.environ[INSIDE] = "1"
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        os.execvp("unshare", ["unshare", *user, "--net", sys.executable, *sys.argv])

    def connect(self) -> None:
        """Make the namespaces, and connect them."""
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "lan", "type", "bridge")
        run("ip", "addr", "add", f"{self.here}/16", "dev", "lan")
        run("ip", "link", "set", "lan", "up")
        for place, (name, address) in enumerate(self.addresses.items()):
            holder = self.holders[name] = subprocess.Popen(
                ["unshare", "--net", "sleep", "infinity"]
            )
            there = Path(f"/proc/{holder.pid}/ns/net")
            while there.readlink() == Path("/proc/self/ns/net").readlink():
                time.sleep(0.01)
            device, pid = f"v{place}", str(holder.pid)
            run("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", pid)
            run("ip", "link", "set", device, "master", "lan", "up")
            self.ip(name, "link set lo up")
            self.ip(name, f"addr add {address}/16 dev eth0")
            self.ip(name, "link set eth0 up")
            # Rules that drop packets must come before the rule for local addresses, and count for open connections, too.
            self.ip(name, "rule add pref 100 lookup local")
            self.ip(name, "rule del pref 0")
            off = "echo 0 > /proc/sys/net/ipv4/ip_early_demux"
            run(*self.inside(name), "sh", "-c", off)

    def inside(self, name: str) -> list[str]:
        """The words before a command that make it run in the namespace of a replica."""
        return ["nsenter", "-t", str(self.holders[name].pid), "-n"]

    def ip(self, name: str, words: str) -> None:
        """Run a command of `ip` in the namespace of a replica."""
        run(*self.inside(name), "ip", *words.split())

    def cut(self, edges: list[list[str]], for_s: float) -> None:
        """Drop all packets from the first to the second replica of each edge, for `for_s` seconds."""
        for verb in ("add", "del"):
            for source, to in edges:
                self.ip(to, f"rule {verb} pref 10 from {self.addresses[source]} blackhole")
            if verb == "add":
                time.sleep(for_s)

    def reset(self, edges: list[list[str]], for_s: float) -> None:
        """End all connections between the replicas of each edge, again and again, for `for_s` seconds."""
        until_s = time.monotonic() + for_s
        while True:
            for source, to in edges:
                run(*self.inside(source), "ss", "-tK", "dst", self.addresses[to])
            if time.monotonic() >= until_s:
                return

    def close(self) -> None:
        """End the namespaces."""
        for holder in self.holders.values():
            holder.kill()

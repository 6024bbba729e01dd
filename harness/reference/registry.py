"""The registry: a list of instances. Each instance stays listed only as long as it renews its lease.

An instance that was killed stays listed until its lease ends, as in every system with leases. Users of the list must tolerate dead
instances. The registry does not write to the disk. A restarted registry learns of each instance when that instance renews its lease. With
several registries, each instance renews its lease at all of them, and a reader uses the union of the lists (see `membership`).

Run this file as a module.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from dataclasses import dataclass
from typing import Final

from graphquake.harness.reference.membership import LEASE_S, REPEAT_S, Instance
from graphquake.harness.reference.node import Node, main
from graphquake.harness.reference.wire import Call, Message

# The interval at which the registry looks for leases that have ended.
LOOK_EVERY_S: Final = LEASE_S / 10


def may_open_files() -> bool:
    """True if this process may open one more file."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True


@dataclass(slots=True)
class Lease:
    """An instance, and the monotonic time at which its lease ends."""

    instance: Instance
    until_s: float


class Registry(Node):
    """The process that keeps the list of instances, and sends it to each watcher when it changes."""

    role = "registry"

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.leases: dict[str, Lease] = {}
        self._changed = asyncio.Event()

    async def on_call(self, call: Call, message: Message) -> None:
        """See `Node.on_call`. An instance renews or ends its lease. A watcher gets the list now, at each change, and every `REPEAT_S`."""
        match message["do"]:
            case "renew":
                self.renew(Instance.of(message["instance"]))
                await call.send({"ok": True})
            case "leave":
                self.remove(message["id"])
                await call.send({"ok": True})
            case "watch":
                await self._tell(call)

    def renew(self, instance: Instance) -> None:
        """Begin or renew the lease of an instance."""
        is_news = instance.id not in self.leases
        self.leases[instance.id] = Lease(instance, time.monotonic() + LEASE_S)
        if is_news:
            self._tell_all()

    def remove(self, instance_id: str) -> None:
        """Remove an instance that leaves, before its lease is over."""
        if self.leases.pop(instance_id, None):
            self._tell_all()

    def expire(self) -> None:
        """Remove the instances whose lease is over."""
        now_s = time.monotonic()
        over = [key for key, lease in self.leases.items() if lease.until_s <= now_s]
        for key in over:
            del self.leases[key]
        if over:
            self._tell_all()

    def was_deaf(self, for_s: float) -> None:
        """Extend all leases after this process could not receive renewals for `for_s` seconds.

        No lease then lasts longer than `LEASE_S` from now.
        """
        longest_s = time.monotonic() + LEASE_S
        for lease in self.leases.values():
            lease.until_s = max(lease.until_s, min(lease.until_s + for_s, longest_s))

    def _tell_all(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _tell(self, call: Call) -> None:
        while True:
            changed = self._changed
            await call.send({"instances": [one.instance.said for one in self.leases.values()]})
            waiting = asyncio.ensure_future(changed.wait())
            await asyncio.wait((waiting,), timeout=REPEAT_S)
            waiting.cancel()

    async def work(self) -> None:
        """See `Node.work`. Removes instances whose lease is over, and notices when this process could not receive their renewals.

        It could not while it was stalled, or while it was not allowed to open a file: then it accepts no connection.
        """
        while True:
            slept_s = -time.monotonic()
            await asyncio.sleep(LOOK_EVERY_S)
            slept_s += time.monotonic()
            self.was_deaf(slept_s - (LOOK_EVERY_S if may_open_files() else 0.0))
            self.expire()

    def metrics(self) -> dict[str, float]:
        """See `Node.metrics`."""
        return {"reference_leases": len(self.leases)}


if __name__ == "__main__":
    main(Registry)

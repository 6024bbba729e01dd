"""Who is there: a list of instances, each of which stays on it only as long as it renews its lease.

An instance that was killed stays listed until its lease ends, as in every system of this kind: whoever uses the list must be able to
live with that. The registry keeps nothing on disk; after its own death it learns of everybody at their next renewal. With
several registries each instance renews at all of them, and a reader takes the union (see `membership`).

Run it as a module.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass

from graphquake.harness.reference.membership import LEASE_S, REPEAT_S, Instance
from graphquake.harness.reference.node import Node, main
from graphquake.harness.reference.wire import Call, Message


@dataclass(slots=True)
class Lease:
    """An instance, and until when it stays listed, on the monotonic clock."""

    instance: Instance
    until_s: float


class Registry(Node):
    """The list, and those who watch it."""

    role = "registry"

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.leases: dict[str, Lease] = {}
        self._changed = asyncio.Event()

    async def on_call(self, call: Call, message: Message) -> None:
        """See `Node.on_call`."""
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
        """Begin or renew a lease."""
        is_news = instance.id not in self.leases
        self.leases[instance.id] = Lease(instance, time.monotonic() + LEASE_S)
        if is_news:
            self._tell_all()

    def remove(self, instance_id: str) -> None:
        """End a lease before its time."""
        if self.leases.pop(instance_id, None):
            self._tell_all()

    def expire(self) -> None:
        """Take from the list whose lease is over."""
        now_s = time.monotonic()
        over = [key for key, lease in self.leases.items() if lease.until_s <= now_s]
        for key in over:
            del self.leases[key]
        if over:
            self._tell_all()

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
        """See `Node.work`."""
        while True:
            await asyncio.sleep(LEASE_S / 10)
            self.expire()

    def metrics(self) -> dict[str, float]:
        """See `Node.metrics`."""
        return {"reference_leases": len(self.leases)}


if __name__ == "__main__":
    main(Registry)

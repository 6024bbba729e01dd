"""A worker that restarts within its lease takes the entry of its last life for its own, and never renews it.

Modelled on dynamo 3493: a brief blip, and a lease that is lost and never taken again.

In: decode
Breaks: views_agree
Plan: bounce decode 0 after 10 ms
"""

from __future__ import annotations

from graphquake.harness.reference.membership import Member
from graphquake.harness.reference.node import main
from graphquake.harness.reference.wire import Gone, call
from graphquake.harness.reference.worker import Worker


class Bug(Member):
    """Joins only if no instance of its name is listed."""

    async def join(self) -> None:
        """Ask each registry for its list first."""
        for address in self._registries:
            if await self.is_listed(address):
                self._joined.set()
                return
        await super().join()

    async def is_listed(self, address: str) -> bool:
        """True if the registry at this address lists an instance of the same name."""
        try:
            watched = await call(address, {"do": "watch"})
            message, _ = await watched.receive(1.0)
        except Gone:
            return False
        watched.close()
        return any(said["name"] == self.instance.name for said in message["instances"])


if __name__ == "__main__":
    Worker.member_kind = Bug
    main(Worker)

"""The client side of the registry: a `Member` stays listed, and a `Directory` knows which instances are listed.

A member renews its lease at every registry, three times a lease, even if the last attempt failed. A directory keeps the last list of a
registry while that registry is down, and for one lease after the registry is back. The reason: a restarted registry lists no instance at
first, and an outdated list does less harm than an empty list.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from graphquake.harness.reference.wire import LOOPBACK, Gone, ask, call

# The lease: the time for which an instance stays listed after its last renewal, even if it is dead.
LEASE_S: Final = 1.5
RENEW_EVERY_S: Final = LEASE_S / 3
ANSWER_MAX_S: Final = 0.3
# A registry sends its whole list to each watcher at least this often, so a watcher that missed an update gets it later.
REPEAT_S: Final = LEASE_S / 2
# The pause between two attempts to reach a registry that is down.
RETRY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Instance:
    """One serving process, as the registry lists it.

    Attributes:
        id: a random text. Each incarnation of a replica has a different one.
        role: the role that it is listed under, such as `decode`.
        name: the name of the replica, such as `decode 0`.
        port: the port on which it accepts calls.
        host: the address on which it accepts calls.
    """

    id: str
    role: str
    name: str
    port: int
    host: str = LOOPBACK

    @property
    def address(self) -> str:
        """Host and port, as `call` wants them."""
        return f"{self.host}:{self.port}"

    @classmethod
    def of(cls, said: dict[str, Any]) -> Self:
        """Read an instance from a message. The inverse of `said`."""
        return cls(**said)

    @property
    def said(self) -> dict[str, Any]:
        """The instance as a part of a message."""
        return asdict(self)


class Member:
    """Keeps an instance listed.

    Args:
        instance: the instance.
        registries: `HOST:PORT` of each registry.
    """

    def __init__(self, instance: Instance, registries: Sequence[str]) -> None:
        self.instance = instance
        self._registries = registries
        self._renewals: list[asyncio.Task[None]] = []
        self._joined = asyncio.Event()

    @property
    def joined(self) -> bool:
        """True if a registry has listed the instance, or if the graph has no registry."""
        return self._joined.is_set() or not self._registries

    async def join(self) -> None:
        """Begin to renew the lease at all registries, and wait until one registry lists the instance."""
        self._renewals = [asyncio.ensure_future(self._renew(one)) for one in self._registries]
        await self._joined.wait()

    async def leave(self) -> None:
        """Stop renewing the lease, and ask every registry to remove the instance from its list."""
        for renewal in self._renewals:
            renewal.cancel()
        leaving = {"do": "leave", "id": self.instance.id}
        asked = (ask(one, leaving, ANSWER_MAX_S) for one in self._registries)
        await asyncio.gather(*asked, return_exceptions=True)

    async def _renew(self, registry: str) -> None:
        renewing = {"do": "renew", "instance": self.instance.said}
        while True:
            try:
                await ask(registry, renewing, ANSWER_MAX_S)
            except Gone:
                await asyncio.sleep(RETRY_S)
            else:
                self._joined.set()
                await asyncio.sleep(RENEW_EVERY_S)


@dataclass(slots=True)
class _View:
    """The list of one registry, as a directory knows it. The instances that "count" are those that the directory returns.

    Attributes:
        instances: the instances that the registry lists now, by id. While the registry is down, those that counted when it went down.
        before: the instances that counted when the registry was reachable again.
        since_s: the time of the first list after the registry was reachable again. Infinity before that list.
        heard_s: the time of the last list.
    """

    instances: dict[str, Instance] = field(default_factory=dict)
    before: dict[str, Instance] = field(default_factory=dict)
    since_s: float = math.inf
    heard_s: float = -math.inf

    def all(self) -> dict[str, Instance]:
        """Return the instances that count, by id. For one lease after the registry is back, the instances in `before` count as well.

        While the registry is silent (e.g. stalled), this lease does not go on, because the registry does not receive renewals then.
        """
        until_s = min(time.monotonic(), self.heard_s + REPEAT_S)
        is_young = until_s - self.since_s < LEASE_S
        return self.before | self.instances if is_young else self.instances

    def opened(self) -> None:
        """Note that the registry is reachable again."""
        self.before, self.since_s = self.instances, math.inf

    def learn(self, instances: Sequence[Instance]) -> None:
        """Note the list that the registry sent."""
        self.instances = {one.id: one for one in instances}
        self.heard_s = time.monotonic()
        self.since_s = min(self.since_s, self.heard_s)

    def lost(self) -> None:
        """Note that the registry is down. All instances that count now go on to count, even if the registry did not list them again yet."""
        self.instances, self.before = self.all(), {}


class Directory:
    """Knows the instances that any registry lists.

    Args:
        registries: `HOST:PORT` of each registry.
    """

    def __init__(self, registries: Sequence[str]) -> None:
        self._views = {one: _View() for one in registries}
        self._watches: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Start watching the registries."""
        self._watches = [asyncio.ensure_future(self._watch(one)) for one in self._views]

    def close(self) -> None:
        """Stop watching the registries."""
        for watch in self._watches:
            watch.cancel()

    def of_role(self, role: str) -> list[Instance]:
        """Return the instances of a role that any registry lists, sorted by name."""
        found = {
            key: one
            for view in self._views.values()
            for key, one in view.all().items()
            if one.role == role
        }
        return sorted(found.values(), key=lambda one: (one.name, one.id))

    async def _watch(self, registry: str) -> None:
        while True:
            try:
                watched = await call(registry, {"do": "watch"})
            except Gone:
                await asyncio.sleep(RETRY_S)
                continue
            view = self._views[registry]
            view.opened()
            try:
                while True:
                    # A registry that is silent for longer than a lease is treated as down.
                    message, _ = await watched.receive(LEASE_S)
                    self.learn(view, [Instance.of(said) for said in message["instances"]])
            except Gone:
                await asyncio.sleep(RETRY_S)
            finally:
                view.lost()
                watched.close()

    def learn(self, view: _View, instances: Sequence[Instance]) -> None:
        """Put the list that a registry sent into the view of that registry. Planted bugs override this method."""
        view.learn(instances)

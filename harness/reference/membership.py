"""The client side of the registry: to be listed, and to know which instances are listed.

A member renews its lease at every registry, three times a lease, even if the last attempt failed. A reader keeps a registry's last list
while the registry is down, and for one lease after it is back. A restarted registry lists no instance at first. An outdated list
does less harm than an empty one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from graphquake.harness.reference.wire import Gone, ask, call

# The time for which a dead instance stays listed.
LEASE_S: Final = 1.5
RENEW_EVERY_S: Final = LEASE_S / 3
ANSWER_MAX_S: Final = 0.3
# Watchers receive the whole list at least this often, which repairs lost updates.
REPEAT_S: Final = LEASE_S / 2
# The pause between two attempts to reach a registry that is down.
RETRY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Instance:
    """One serving process.

    Attributes:
        id: of this incarnation alone.
        name: of the replica: `decode 0`.
        port: on loopback.
    """

    id: str
    role: str
    name: str
    port: int

    @classmethod
    def of(cls, said: dict[str, Any]) -> Self:
        """Read the form that `said` returns."""
        return cls(**said)

    @property
    def said(self) -> dict[str, Any]:
        """The form that is sent over the wire."""
        return asdict(self)


class Member:
    """Keeps an instance listed.

    Args:
        registries: their ports.
    """

    def __init__(self, instance: Instance, registries: Sequence[int]) -> None:
        self.instance = instance
        self._registries = registries
        self._renewals: list[asyncio.Task[None]] = []
        self._joined = asyncio.Event()

    @property
    def joined(self) -> bool:
        """True if a registry has listed it, or if the graph runs without a registry."""
        return self._joined.is_set() or not self._registries

    async def join(self) -> None:
        """Wait until one registry lists the instance, and keep renewing its lease at all of them."""
        self._renewals = [asyncio.ensure_future(self._renew(port)) for port in self._registries]
        await self._joined.wait()

    async def leave(self) -> None:
        """Remove the instance from every list."""
        for renewal in self._renewals:
            renewal.cancel()
        leaving = {"do": "leave", "id": self.instance.id}
        asked = (ask(port, leaving, ANSWER_MAX_S) for port in self._registries)
        await asyncio.gather(*asked, return_exceptions=True)

    async def _renew(self, port: int) -> None:
        renewing = {"do": "renew", "instance": self.instance.said}
        while True:
            try:
                await ask(port, renewing, ANSWER_MAX_S)
            except Gone:
                await asyncio.sleep(RETRY_S)
            else:
                self._joined.set()
                await asyncio.sleep(RENEW_EVERY_S)


@dataclass(slots=True)
class _View:
    """The list of one registry.

    Attributes:
        instances: the instances that it lists now, by id. While it is away, those that counted when it went.
        before: the instances that counted when it came back.
        since_s: when it was first heard after it came back.
        heard_s: when it was last heard.
    """

    instances: dict[str, Instance] = field(default_factory=dict)
    before: dict[str, Instance] = field(default_factory=dict)
    since_s: float = math.inf
    heard_s: float = -math.inf

    def all(self) -> dict[str, Instance]:
        """The instances that count. While the registry is not back for a lease, the earlier ones count too.

        The time that it is silent, stalled say, does not count, because it hears of no instance then.
        """
        until_s = min(time.monotonic(), self.heard_s + REPEAT_S)
        is_young = until_s - self.since_s < LEASE_S
        return self.before | self.instances if is_young else self.instances

    def opened(self) -> None:
        """The registry is reachable again."""
        self.before, self.since_s = self.instances, math.inf

    def learn(self, instances: Sequence[Instance]) -> None:
        """The registry sent its list."""
        self.instances = {one.id: one for one in instances}
        self.heard_s = time.monotonic()
        self.since_s = min(self.since_s, self.heard_s)

    def lost(self) -> None:
        """The registry is down. Instances that it did not know yet are not taken for gone."""
        self.instances, self.before = self.all(), {}


class Directory:
    """Knows the listed instances."""

    def __init__(self, registries: Sequence[int]) -> None:
        self._views = {port: _View() for port in registries}
        self._watches: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Start watching the registries."""
        self._watches = [asyncio.ensure_future(self._watch(port)) for port in self._views]

    def close(self) -> None:
        """Stop watching the registries."""
        for watch in self._watches:
            watch.cancel()

    def of_role(self, role: str) -> list[Instance]:
        """The instances of a role that any registry lists, by name."""
        found = {
            key: one
            for view in self._views.values()
            for key, one in view.all().items()
            if one.role == role
        }
        return sorted(found.values(), key=lambda one: (one.name, one.id))

    async def _watch(self, port: int) -> None:
        while True:
            try:
                watched = await call(port, {"do": "watch"})
            except Gone:
                await asyncio.sleep(RETRY_S)
                continue
            view = self._views[port]
            view.opened()
            try:
                while True:
                    # A registry that has been silent for longer is treated as down.
                    message, _ = await watched.receive(LEASE_S)
                    self.learn(view, [Instance.of(said) for said in message["instances"]])
            except Gone:
                await asyncio.sleep(RETRY_S)
            finally:
                view.lost()
                watched.close()

    def learn(self, view: _View, instances: Sequence[Instance]) -> None:
        """Take over the list that a registry sent."""
        view.learn(instances)

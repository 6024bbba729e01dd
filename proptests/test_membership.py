"""Tests of the reference graph's membership: the instances that a reader counts while its registry comes and goes."""

from __future__ import annotations

import argparse
import asyncio
import time

import pytest

from graphquake.harness.reference import membership, registry
from graphquake.harness.reference.membership import LEASE_S, Directory, Instance
from graphquake.harness.reference.registry import Registry

pytestmark = pytest.mark.simulated

REGISTRY = "127.0.0.1:1"


class Clock:
    """A monotonic clock that only the test moves."""

    now_s = 100.0

    def monotonic(self) -> float:
        """See `time.monotonic`."""
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the directory's clock by one that only the test moves."""
    clock = Clock()
    monkeypatch.setattr(membership, "time", clock)
    return clock


def instances(*names: str) -> list[Instance]:
    """Return one instance for each name."""
    return [Instance(name, "decode", name, 1) for name in names]


def listed(directory: Directory) -> list[str]:
    """Return the names of the decode instances that count."""
    return [one.name for one in directory.of_role("decode")]


def test_a_registry_that_is_back_is_believed_after_a_lease(clock: Clock) -> None:
    """After a registry is back, its earlier instances count for one more lease. Then only its new list counts."""
    directory = Directory([REGISTRY])
    view = directory._views[REGISTRY]
    view.opened()
    directory.learn(view, instances("a", "b"))
    view.lost()
    assert listed(directory) == ["a", "b"]
    clock.now_s += 60.0
    view.opened()
    directory.learn(view, instances("a"))
    assert listed(directory) == ["a", "b"]
    clock.now_s += LEASE_S
    directory.learn(view, instances("a"))
    assert listed(directory) == ["a"]


def test_a_registry_that_stalls_just_after_its_return(clock: Clock) -> None:
    """If a registry stalls just after it is back, its earlier instances count until it has been heard for a whole lease."""
    directory = Directory([REGISTRY])
    view = directory._views[REGISTRY]
    view.opened()
    directory.learn(view, instances("a", "b"))
    view.lost()
    view.opened()
    directory.learn(view, instances("a"))
    clock.now_s += LEASE_S
    assert listed(directory) == ["a", "b"]
    # The registry was silent for too long. The reader asks again, and gets an answer when the registry goes on.
    view.lost()
    view.opened()
    clock.now_s += LEASE_S
    directory.learn(view, [])
    assert listed(directory) == ["a", "b"]
    directory.learn(view, instances("a", "b"))
    clock.now_s += LEASE_S
    directory.learn(view, instances("a", "b"))
    assert listed(directory) == ["a", "b"]


def test_a_registry_that_is_lost_again_ends_no_instance(clock: Clock) -> None:
    """If a registry is lost again before it has listed all instances, all of them count while it is away and when it is back."""
    directory = Directory([REGISTRY])
    view = directory._views[REGISTRY]
    view.opened()
    directory.learn(view, instances("a", "b"))
    view.lost()
    view.opened()
    directory.learn(view, instances("a"))
    view.lost()
    clock.now_s += 60.0
    assert listed(directory) == ["a", "b"]
    view.opened()
    assert listed(directory) == ["a", "b"]


def test_a_registry_that_was_stalled_ends_no_lease_for_that(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a registry's stall does not count against leases. A renewal right after the stall lasts for one lease only."""
    monkeypatch.setattr(registry, "time", clock)
    one = Registry(argparse.Namespace(host="127.0.0.1", port=1, registries=[], name="registry 0"))
    early, late = instances("a", "b")
    one.renew(early)
    clock.now_s += LEASE_S / 2
    stalled_s = LEASE_S
    clock.now_s += stalled_s
    one.renew(late)
    one.was_deaf(stalled_s)
    one.expire()
    assert set(one.leases) == {"a", "b"}
    clock.now_s += LEASE_S / 2
    one.expire()
    assert set(one.leases) == {"b"}
    clock.now_s += LEASE_S / 2
    one.expire()
    assert not one.leases


@pytest.mark.parametrize("may_open", [True, False])
def test_a_registry_without_free_files_ends_no_lease(
    monkeypatch: pytest.MonkeyPatch, *, may_open: bool
) -> None:
    """It accepts no connection, so it hears no renewal. A silent instance of a registry that hears is gone after its lease."""
    monkeypatch.setattr(registry, "may_open_files", lambda: may_open)
    monkeypatch.setattr(registry, "LEASE_S", 0.05)
    monkeypatch.setattr(registry, "LOOK_EVERY_S", 0.01)
    one = Registry(argparse.Namespace(host="127.0.0.1", port=1, registries=[], name="registry 0"))
    one.renew(instances("a")[0])

    async def work() -> None:
        looks = asyncio.ensure_future(one.work())
        until_s = time.monotonic() + (10.0 if may_open else 0.3)
        while one.leases and time.monotonic() < until_s:
            await asyncio.sleep(0.01)
        looks.cancel()

    asyncio.run(work())
    assert bool(one.leases) is not may_open


def test_a_new_reader_believes_its_first_list(clock: Clock) -> None:
    """A new reader has no earlier list. An instance that leaves the list is gone at once, also within the first lease."""
    directory = Directory([REGISTRY])
    view = directory._views[REGISTRY]
    view.opened()
    directory.learn(view, instances("a", "b"))
    clock.now_s += LEASE_S / 2
    directory.learn(view, instances("a"))
    assert listed(directory) == ["a"]

"""What a reader of the reference graph's registry believes, while that one comes and goes."""

from __future__ import annotations

import argparse

import pytest

from graphquake.harness.reference import membership, registry
from graphquake.harness.reference.membership import LEASE_S, Directory, Instance
from graphquake.harness.reference.registry import Registry

PORT = 1


class Clock:
    """The monotonic clock, as a test moves it."""

    now_s = 100.0

    def monotonic(self) -> float:
        """See `time.monotonic`."""
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time stands still for the directory unless a test moves it."""
    clock = Clock()
    monkeypatch.setattr(membership, "time", clock)
    return clock


def instances(*names: str) -> list[Instance]:
    """One for each name."""
    return [Instance(name, "decode", name, 1) for name in names]


def listed(directory: Directory) -> list[str]:
    """Their names."""
    return [one.name for one in directory.of_role("decode")]


def test_a_registry_that_is_back_knows_nobody_yet(clock: Clock) -> None:
    """For one lease those of before count as well; then it is believed."""
    directory = Directory([PORT])
    view = directory._views[PORT]
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


def test_one_that_is_stalled_when_it_is_just_back_hears_of_nobody(clock: Clock) -> None:
    """What it had not heard of before it was stalled counts all the while, and until it was heard for a lease."""
    directory = Directory([PORT])
    view = directory._views[PORT]
    view.opened()
    directory.learn(view, instances("a", "b"))
    view.lost()
    view.opened()
    directory.learn(view, instances("a"))
    clock.now_s += LEASE_S
    assert listed(directory) == ["a", "b"]
    # It was silent for too long: the reader asks anew, and is answered when the registry goes on.
    view.lost()
    view.opened()
    clock.now_s += LEASE_S
    directory.learn(view, [])
    assert listed(directory) == ["a", "b"]
    directory.learn(view, instances("a", "b"))
    clock.now_s += LEASE_S
    directory.learn(view, instances("a", "b"))
    assert listed(directory) == ["a", "b"]


def test_one_that_goes_again_at_once_takes_nobody_with_it(clock: Clock) -> None:
    """It had heard of one of the two: while it is away, both count, however long that takes, and when it is back as well."""
    directory = Directory([PORT])
    view = directory._views[PORT]
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
    """It could not hear who renewed; who renewed first thing afterwards gets no more than a lease."""
    monkeypatch.setattr(registry, "time", clock)
    one = Registry(argparse.Namespace(port=1, registries=[], name="registry 0"))
    early, late = instances("a", "b")
    one.renew(early)
    clock.now_s += LEASE_S / 2
    stalled_s = LEASE_S
    clock.now_s += stalled_s
    one.renew(late)
    one.overslept(stalled_s)
    one.expire()
    assert set(one.leases) == {"a", "b"}
    clock.now_s += LEASE_S / 2
    one.expire()
    assert set(one.leases) == {"b"}
    clock.now_s += LEASE_S / 2
    one.expire()
    assert not one.leases


def test_who_was_never_known_before_is_believed_at_once(clock: Clock) -> None:
    """A reader that has just begun has nothing to hold on to: whoever leaves the list is gone, within its first lease as well."""
    directory = Directory([PORT])
    view = directory._views[PORT]
    view.opened()
    directory.learn(view, instances("a", "b"))
    clock.now_s += LEASE_S / 2
    directory.learn(view, instances("a"))
    assert listed(directory) == ["a"]

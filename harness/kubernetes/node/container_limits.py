"""The limits of one container, as the agent lowers them for a time: the CPU time and the memory of its control group.

A container runtime makes a control group for each container, and its name has the container's id. Both versions of control groups are used.
A limit that is already as low is left alone, and so is one that was changed meanwhile. The kernel's own counts are the proof.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# Where the control groups of the node are: in the agent's pod, or where the agent sees those of its machine.
PLACES: Final = (Path("/host/cgroup"), Path("/sys/fs/cgroup"))
PERIOD_US: Final = 100_000
# The kernel takes no shorter CPU time in a period.
QUOTA_MIN_US: Final = 1_000
MIB: Final = 1 << 20
_WHOLE: Final = 100
# The process that a runtime keeps beside a container has its id in its name, too.
_BESIDE: Final = "conmon"


@dataclass(frozen=True)
class Group:
    """The files of a control group for one resource, by their names in one version of control groups.

    Attributes:
        limit: the file with the limit.
        used: the file with the present use, or an empty text.
        counts: the file with the kernel's counts.
        met: the name of the count that grows when the limit is met. Empty if the file has only this count.
    """

    limit: str
    used: str
    counts: str
    met: str


GROUPS: Final = {
    "cpu": (
        Group("cpu.max", "", "cpu.stat", "nr_throttled"),
        Group("cpu.cfs_quota_us", "", "cpu.stat", "nr_throttled"),
    ),
    "memory": (
        Group("memory.max", "memory.current", "memory.events", "max"),
        Group("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.failcnt", ""),
    ),
}


@dataclass(frozen=True)
class Held:
    """A limit that is lower now.

    Attributes:
        folder, group: the control group.
        was, now: the limit before, and what the kernel shows since.
        met: how often it had been met before.
    """

    folder: Path
    group: Group
    was: str
    now: str
    met: int


class Limits:
    """The limits that are lower now, by container and resource.

    Args:
        places: the folders in which control groups are looked for. The first one that exists is taken.
    """

    def __init__(self, places: tuple[Path, ...] = PLACES) -> None:
        self._places = places
        self._held: dict[tuple[str, str], Held] = {}

    def squeeze(self, asked: dict[str, Any]) -> tuple[bool, str]:
        """Lower a limit. Return whether the kernel has taken it, and the proof or the reason."""
        key = container, what = asked["container"], asked["what"]
        if key in self._held:
            return False, f"{what} of the container is squeezed already"
        found = next(self._groups(container, what), None)
        if found is None:
            return False, f"the container has no control group for {what} that the agent sees"
        folder, group = found
        was = (folder / group.limit).read_text(encoding="ascii").strip()
        limit, proof = (_cpu if what == "cpu" else _memory)(folder, group, was, asked["amount"])
        if not limit:
            return False, proof
        met = _count(folder, group)
        (folder / group.limit).write_text(limit, encoding="ascii")
        now = (folder / group.limit).read_text(encoding="ascii").strip()
        self._held[key] = Held(folder, group, was, now, met)
        return True, f"{proof}: {group.limit} is {now}, {was} before"

    def met(self, asked: dict[str, Any]) -> int:
        """Return how often a limit was met since it is lower. 0 if the container is gone."""
        held = self._held[asked["container"], asked["what"]]
        with suppress(OSError):
            return _count(held.folder, held.group) - held.met
        return 0

    def release(self, asked: dict[str, Any]) -> tuple[bool, str]:
        """Give a limit its former value. Return whether it has it, and the proof or the reason."""
        key = asked["container"], asked["what"]
        if key not in self._held:
            return True, "nothing to give back"
        met, held = self.met(asked), self._held.pop(key)
        path = held.folder / held.group.limit
        try:
            if (now := path.read_text(encoding="ascii").strip()) != held.now:
                return False, f"{held.group.limit} was changed to {now} meanwhile, and stays so"
            path.write_text(held.was, encoding="ascii")
            back = path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return True, "the container has ended"
        return (
            back == held.was,
            f"{held.group.limit} is {back} again; the limit was met {met} times",
        )

    def undo(self) -> None:
        """Give every limit its former value."""
        for container, what in list(self._held):
            with suppress(OSError):
                self.release({"container": container, "what": what})

    def _groups(self, container: str, what: str) -> Iterator[tuple[Path, Group]]:
        """Yield the control groups of a container that limit a resource."""
        place = next((one for one in self._places if one.is_dir()), None)
        for top, folders, _ in os.walk(place or "/nowhere"):
            for name in folders:
                if container in name and _BESIDE not in name:
                    folder = Path(top, name)
                    yield from ((folder, one) for one in GROUPS[what] if (folder / one.limit).exists())  # fmt: skip


def _cpu(folder: Path, group: Group, was: str, share: int) -> tuple[str, str]:
    """Return the limit that leaves a share of one core, in percent, and the proof. Without a limit, the text is the reason."""
    is_first = group.limit == "cpu.cfs_quota_us"
    if is_first:
        period_us = int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
        has_us = int(was)
    else:
        quota, period = was.split()
        period_us, has_us = int(period), -1 if quota == "max" else int(quota)
    if 0 <= has_us <= period_us * share // _WHOLE:
        return "", f"the container gets no more than {has_us * _WHOLE // period_us}% of a core anyway"  # fmt: skip
    quota_us = max(QUOTA_MIN_US, period_us * share // _WHOLE)
    limit = str(quota_us) if is_first else f"{quota_us} {period_us}"
    return limit, f"the container gets {quota_us * _WHOLE / period_us:g}% of a core"


def _memory(folder: Path, group: Group, was: str, room_mib: int) -> tuple[str, str]:
    """Return the limit that leaves so many MiB more than the container has, and the proof. Without a limit, the text is the reason."""
    used = int((folder / group.used).read_text(encoding="ascii"))
    limit = used + room_mib * MIB
    if was != "max" and int(was) <= limit:
        return "", f"the container may have no more than {(int(was) - used) // MIB} MiB more anyway"
    return str(limit), f"the container has {used // MIB} MiB, and may have {room_mib} MiB more"


def _count(folder: Path, group: Group) -> int:
    """Return how often a limit was met."""
    words = (folder / group.counts).read_text(encoding="ascii").split()
    if not group.met:
        return int(words[0])
    return int(words[words.index(group.met) + 1])

"""The moments of replicas that steps wait for: the start of an incarnation, and a line in a log.

The supervisor reports each start here, so a wait for one ends in the next turn of the event loop. Logs are files that other processes
write. Their new bytes are read every `LOOK_EVERY_S` seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from graphquake.harness.processes.replicas import Incarnation, ReplicaState
from graphquake.harness.reports.text import COLOURS
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, came, in_time, too_late

# The interval at which a log is read while a step waits for one of its lines. Reading the end of a file takes some 20 µs.
LOOK_EVERY_S: Final = 0.005
# A line without an end is searched up to this length.
LINE_MAX_BYTES: Final = 1 << 16
# The part of a line that a proof shows.
SHOWN_MAX: Final = 80


@dataclass(slots=True)
class ReplicaMoments:
    """The `Moments` of a launched graph."""

    replicas: Mapping[Replica, ReplicaState]
    _starts: list[tuple[Replica, asyncio.Future[Incarnation]]] = field(default_factory=list)

    def spawned(self, replica: Replica, incarnation: Incarnation) -> None:
        """Note that an incarnation was spawned."""
        for who, start in self._starts:
            if who == replica and not start.done():
                start.set_result(incarnation)

    async def started(self, replica: Replica, within_s: float) -> Landed:
        """See `Moments.started`."""
        begun_s = time.monotonic()
        running = self.replicas[replica].running
        if running is not None and not running.ready.is_set():
            return came(f"{running.child.called} starts already", begun_s, begun_s)
        start: asyncio.Future[Incarnation] = asyncio.get_running_loop().create_future()
        self._starts.append((replica, start))
        try:
            incarnation = await in_time(start, within_s)
        finally:
            self._starts.remove((replica, start))
        if incarnation is None:
            return too_late(f"{replica} was not started within {within_s:g} s")
        child = incarnation.child
        return came(child.called, child.at_s, begun_s)

    async def logged(self, replica: Replica, text: str, within_s: float) -> Landed:
        """See `Moments.logged`."""
        begun_s = time.monotonic()
        state = self.replicas[replica]
        tails: dict[Path, LogTail] = {}
        if state.now is not None:
            tails[state.now.log] = LogTail.at_end(state.now.log)
        while (now_s := time.monotonic()) < begun_s + within_s:
            if state.now is not None and state.now.log not in tails:
                tails[state.now.log] = LogTail(state.now.log)
            for tail in tails.values():
                for line in tail.new_lines():
                    if text in line:
                        return came(f'"{line[:SHOWN_MAX]}"', now_s, begun_s)
            await asyncio.sleep(LOOK_EVERY_S)
        return too_late(f"no such line within {within_s:g} s")


@dataclass(slots=True)
class LogTail:
    """Reads the lines that are added to a log.

    Attributes:
        path: the file. It may not exist yet.
        offset: the number of bytes that were read or skipped.
    """

    path: Path
    offset: int = 0
    _rest: bytes = b""

    @classmethod
    def at_end(cls, path: Path) -> LogTail:
        """Return a reader that skips the present contents of the log."""
        try:
            return cls(path, path.stat().st_size)
        except FileNotFoundError:
            return cls(path)

    def new_lines(self) -> Iterator[str]:
        """Yield the lines that were added since the last call, without colours, with one blank between words.

        The last line may have no end yet. Once it has grown, it is yielded again.
        """
        try:
            if self.path.stat().st_size <= self.offset:
                return
            with self.path.open("rb") as file:
                file.seek(self.offset)
                added = file.read()
        except FileNotFoundError:
            return
        self.offset += len(added)
        *lines, rest = (self._rest + added).split(b"\n")
        self._rest = rest[-LINE_MAX_BYTES:]
        for line in (*lines, rest):
            yield " ".join(COLOURS.sub("", line.decode("utf-8", "replace")).split())

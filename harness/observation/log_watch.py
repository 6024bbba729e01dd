"""Look for lines in the logs of replicas that the promise `no_panic` forbids.

Each log is a file that the processes of one incarnation write. Its new bytes are read every `LOOK_EVERY_S` seconds, so the time of a line
is known to that precision. Each pattern is reported once for each incarnation. A search takes time in proportion to the new bytes, and one
look reads at most `READ_MAX_BYTES` of each log. If a program writes faster than that, its lines are found later.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from graphquake.harness.history.events import Panicked
from graphquake.harness.processes.replicas import Incarnation, ReplicaState
from graphquake.harness.reports.text import COLOURS
from graphquake.harness.spec.bounds import Promises
from graphquake.harness.spec.panics import LinePattern, compiled

LOOK_EVERY_S: Final = 0.25
READ_MAX_BYTES: Final = 1 << 18
# The part of a line that is kept.
LINE_MAX: Final = 200


async def watch_logs(
    promises: Promises,
    incarnations: Mapping[str, tuple[ReplicaState, Incarnation]],
    report: Callable[[Panicked], None],
) -> None:
    """Watch the logs of all incarnations until the task is cancelled. If the graph does not promise `no_panic`, return at once.

    Args:
        promises: the promises of the graph, with the patterns.
        incarnations: all incarnations by their keys. New ones may be added at any time.
        report: receives the first line of each incarnation that matches a pattern, with its time in `time.monotonic()` seconds.
    """
    if "no_panic" not in promises.made:
        return
    ignored = [re.compile(text) for text in promises.not_panics]
    reader = PanicReader(compiled(promises.panics), ignored)
    logs: dict[str, NewBytes] = {}
    while True:
        for key, (replica, incarnation) in list(incarnations.items()):
            log = logs.setdefault(key, NewBytes(incarnation.log))
            if log.is_over:
                continue
            # The log of a dead incarnation is read once more, up to its end.
            ended = not incarnation.runs
            if not (added := log.read()):
                log.is_over = ended
                continue
            for name, line in reader.find(key, added):
                found = Panicked(time.monotonic(), replica.name, incarnation.number, name, line)
                report(found)
        await asyncio.sleep(LOOK_EVERY_S)


@dataclass(slots=True)
class NewBytes:
    """Reads whole lines that were added to a file.

    Attributes:
        path: the file. It may not exist yet.
        is_over: true if nothing more will be written.
    """

    path: Path
    is_over: bool = False
    _offset: int = 0
    _rest: bytes = b""

    def read(self) -> bytes:
        """Return the lines that were added since the last call, or nothing. A line without an end is kept for the next call."""
        try:
            if self.path.stat().st_size <= self._offset:
                return b""
            with self.path.open("rb") as file:
                file.seek(self._offset)
                added = file.read(READ_MAX_BYTES)
        except OSError:
            return b""
        self._offset += len(added)
        lines, end, rest = (self._rest + added).rpartition(b"\n")
        self._rest = rest[-READ_MAX_BYTES:]
        return lines + end


@dataclass(slots=True)
class PanicReader:
    """Finds the forbidden lines of logs.

    Attributes:
        patterns: the forbidden lines, by the names of the patterns.
        ignored: the lines that do not count although they match.
    """

    patterns: Mapping[str, LinePattern]
    ignored: Sequence[re.Pattern[str]] = ()
    _found: set[tuple[str, str]] = field(default_factory=set)

    def find(self, key: str, added: bytes) -> Iterator[tuple[str, str]]:
        """Yield the name of each pattern that an incarnation has not matched before, with the line that matches it now.

        Args:
            key: the key of the incarnation.
            added: new lines of its log.
        """
        text = added.decode("utf-8", "replace")
        text = COLOURS.sub("", text) if "\x1b" in text else text
        for name, pattern in self.patterns.items():
            if (key, name) in self._found:
                continue
            for match in pattern.matches(text):
                line = _line_at(text, match.start())
                if not any(one.search(line) for one in self.ignored):
                    self._found.add((key, name))
                    yield name, line[:LINE_MAX]
                    break


def _line_at(text: str, at: int) -> str:
    begin = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    return " ".join(text[begin : end if end >= 0 else len(text)].split())

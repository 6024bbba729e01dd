"""Parts of reports that are computed from a history, as plain text: a timeline, the failures in words, and warnings in logs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from graphquake.harness.history.history import History
from graphquake.harness.history.request import (
    AS_ASKED,
    Outcome,
    Request,
)

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
TIMELINE_WIDTH: Final = 60
LOG_LINES_MAX: Final = 4
LOG_LINE_CHARS: Final = 64
# The control sequences by which programs colour their logs.
COLOURS: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TELLING: Final = re.compile(
    r"\b(WARN|WARNING|ERROR|CRITICAL|FATAL|panicked|Traceback|Exception)\b"
)
# Time stamps with a date: ISO 8601, `2026/01/31 12:00:00` as nginx and Go write it, and `31/Jan/2026:12:00:00` as HAProxy does.
_STAMP: Final = re.compile(
    r"(?:(?P<year>\d{4})[-/](?P<month>\d\d)[-/](?P<day>\d\d)[T ]|(?P<day_>\d\d)/(?P<name>[A-Z][a-z]{2})/(?P<year_>\d{4}):)"
    r"(?P<clock>\d\d:\d\d:\d\d)(?:[.,](?P<part>\d{1,6})\d*)?(?P<zone>Z| ?[+-]\d\d:?\d\d)?"
)
_MONTHS: Final = [
    "Jan",
    "Feb",
    "Mar",
    "Apr",
    "May",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
]
# The names of tracing spans and modules, each with a colon, at the start of a log line. They are cut to leave room for the message.
_SPANS: Final = re.compile(r"^(\w+ )(?:[\w.:{}\[\]-]+: )+")


def since_s(history: History) -> float:
    """Return the time that reports call 0 s, on the run's clock: the first fault that landed, or else the start of the plan."""
    faults = history.faults()
    return faults[0].at_s if faults else (history.phase_began_s("plan") or 0.0)


def failed_of(history: History) -> tuple[list[Request], list[Request]]:
    """Return two lists: all requests that ended after `since_s`, and those of them that failed or were wrong.

    A request that ended as its client asked is in neither list: the client left, or its prompt was too long.
    """
    zero_s = since_s(history)
    sent = [
        r
        for r in history.requests
        if r.outcome and r.ended_s >= zero_s and r.outcome not in AS_ASKED
    ]
    return sent, [r for r in sent if r.failed or r.outcome == Outcome.WRONG]


def failures_text(history: History) -> str:
    """Return one line: the number of failures, their three most common kinds, and the time at which the last failed request was sent."""
    sent, failed = failed_of(history)
    if not failed:
        return f"none of {len(sent)} requests failed"
    ways = Counter(request.detail for request in failed).most_common(3)
    kinds = ", ".join(f"{count} × {detail}" for detail, count in ways)
    last_s = max(request.sent_s for request in failed) - since_s(history)
    return f"{len(failed)} of {len(sent)} failed: {kinds}; the last one sent at {last_s:+.1f} s"


def timeline(history: History, width: int = TIMELINE_WIDTH) -> list[str]:
    """Return right answers and failures over time, as four lines of text, or no line if the run has no length.

    The lines are: marks of faults and of the heal, blocks for right answers, blocks for failures, and the legend. The period begins two
    seconds before `since_s` and ends with the load.

    Args:
        history: the run.
        width: the number of characters for the whole period.
    """
    zero_s = since_s(history)
    begin_s, end_s = max(0.0, zero_s - 2.0), history.phase_began_s("drain") or history.end_s
    if end_s - begin_s <= 0:
        return []
    bin_s = (end_s - begin_s) / width

    def place(at_s: float) -> int:
        return min(width - 1, max(0, int((at_s - begin_s) / bin_s)))

    right, wrong = Counter[int](), Counter[int]()
    for request in history.requests:
        if request.outcome and begin_s <= request.ended_s <= end_s:
            fine = request.outcome in {Outcome.OK, Outcome.SHED, *AS_ASKED}
            (right if fine else wrong)[place(request.ended_s)] += 1
    most = max([*right.values(), *wrong.values(), 1])
    marks = [" "] * width
    for step in history.faults():
        marks[place(step.at_s)] = "×"
    healed_s = history.phase_began_s("recover")
    if healed_s is not None:
        at = place(healed_s)
        marks[at + (marks[at] == "×" and at + 1 < width)] = "+"
    ends = f"{begin_s - zero_s:+.1f} s … {end_s - zero_s:+.1f} s"
    return [
        f"      {''.join(marks).rstrip()}",
        f"ok    {_row(right, most, width)}",
        f"fail  {_row(wrong, most, width)}",
        f"      {ends}, × fault, + healed, full block {most / bin_s:.0f}/s",
    ]


def _row(counts: Counter[int], most: int, width: int) -> str:
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[-(-counts[at] * top // most)] for at in range(width)).rstrip()


@dataclass(frozen=True, slots=True)
class LogLine:
    """A log line that shows a warning or an error.

    Attributes:
        replica: the name of the log file without its ending: role, index and incarnation, e.g. `decode-0.1`.
        at_s: the time of the line in seconds since the first fault, or None if its log has no time stamp before it.
        text: the line without its time stamp and the names of its spans, at most `LOG_LINE_CHARS` characters.
    """

    replica: str
    at_s: float | None
    text: str


def telling_lines(history: History, folder: Path) -> list[LogLine]:
    """Return a warning or error of each log, at most `LOG_LINES_MAX` lines over all logs, the earliest first.

    It is the first one since the first fault. A line without a time stamp has the time of the line before it. A log without any time
    stamp gives its last warning or error, because the first ones are often of its start. Such lines come last, and have no time.

    Args:
        history: the run.
        folder: the folder of the run.
    """
    began = history.host.began
    zero = began.timestamp() + since_s(history) if began else None
    found = []
    for log in sorted((folder / "logs").glob("*.log")):
        with log.open(encoding="utf-8", errors="replace") as lines:
            line = _telling(log.stem, lines, zero)
        if line is not None:
            found.append(line)
    found.sort(key=lambda line: line.at_s if line.at_s is not None else 1e9)
    return found[:LOG_LINES_MAX]


def _telling(name: str, lines: Iterable[str], zero: float | None) -> LogLine | None:
    """The telling line of one log. `zero` is the time of the first fault, in seconds since the epoch, or None if it is not known."""
    timeless = at_s = None
    for line in (COLOURS.sub("", line) for line in lines):
        stamp = _STAMP.search(line)
        if stamp is not None and zero is not None and (stamp_s := _epoch_s(stamp)) is not None:
            at_s = stamp_s - zero
        if not _TELLING.search(line) or (at_s is not None and at_s < 0):
            continue
        text = " ".join(line.replace(stamp[0] if stamp else "", "", 1).split())
        found = LogLine(name, at_s, _SPANS.sub(r"\1", text)[:LOG_LINE_CHARS])
        if at_s is not None:
            return found
        timeless = found
    return timeless


def _epoch_s(stamp: re.Match[str]) -> float | None:
    """The time of a time stamp, in seconds since the epoch, or None if the date does not exist. A stamp without a zone is local time."""
    part = stamp.groupdict()
    with suppress(ValueError):
        month = part["month"] or f"{_MONTHS.index(part['name']) + 1:02}"
        day = f"{part['year'] or part['year_']}-{month}-{part['day'] or part['day_']}"
        zone = (part["zone"] or "").strip().replace("Z", "+00:00")
        text = f"{day}T{part['clock']}.{(part['part'] or '0'):0<6}{zone}"
        return datetime.fromisoformat(text).timestamp()
    return None

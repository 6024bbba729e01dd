"""Parts of reports that are computed from a history, as plain text: a timeline, the failures in words, and warnings in logs."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from graphquake.harness.history.history import History
from graphquake.harness.history.request import (
    Outcome,
    Request,
)

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
TIMELINE_WIDTH: Final = 60
LOG_LINES_MAX: Final = 4
LOG_LINE_CHARS: Final = 64
_TELLING: Final = re.compile(
    r"\b(WARN|WARNING|ERROR|CRITICAL|FATAL|panicked|Traceback|Exception)\b"
)
_STAMP: Final = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,6})?\d*(Z|[+-]\d\d:?\d\d)?"
)
# The names of tracing spans and modules, each with a colon, at the begin of a log line. They are cut to leave room for the message.
_SPANS: Final = re.compile(r"^(\w+ )(?:[\w.:{}\[\]-]+: )+")


def since_s(history: History) -> float:
    """Return the time that reports call 0 s, on the run's clock: the first fault that landed, or else the begin of the plan."""
    faults = history.faults()
    return faults[0].at_s if faults else (history.phase_began_s("plan") or 0.0)


def failed_of(history: History) -> tuple[list[Request], list[Request]]:
    """Return two lists: all requests that ended after `since_s`, and those of them that failed or were wrong.

    A request whose client closed the connection itself is in neither list.
    """
    zero_s = since_s(history)
    sent = [
        r
        for r in history.requests
        if r.outcome and r.ended_s >= zero_s and r.outcome != Outcome.LEFT
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
            fine = request.outcome in (Outcome.OK, Outcome.SHED, Outcome.LEFT)
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
        at_s: the time of the line in seconds since the first fault, or None if the line has no time stamp.
        text: the line without its time stamp and the names of its spans, at most `LOG_LINE_CHARS` characters.
    """

    replica: str
    at_s: float | None
    text: str


def telling_lines(history: History, folder: Path) -> list[LogLine]:
    """Return the first warning or error of each log since the first fault, at most `LOG_LINES_MAX` lines over all logs.

    A line without a time stamp may be older than the fault. The earliest lines are returned, and lines without a time stamp come last.

    Args:
        history: the run.
        folder: the folder of the run.
    """
    began = history.host.began
    zero = began.timestamp() + since_s(history) if began else None
    found = []
    for log in sorted((folder / "logs").glob("*.log")):
        with log.open(encoding="utf-8", errors="replace") as lines:
            line = next((one for line in lines if (one := _telling(log.stem, line, zero))), None)
        if line is not None:
            found.append(line)
    found.sort(key=lambda line: line.at_s if line.at_s is not None else 1e9)
    return found[:LOG_LINES_MAX]


def _telling(name: str, line: str, zero: float | None) -> LogLine | None:
    if not _TELLING.search(line):
        return None
    stamp = _STAMP.search(line)
    at_s = None
    if stamp and zero is not None:
        text = stamp[0].replace(",", ".").replace("Z", "+00:00")
        try:
            at_s = datetime.fromisoformat(text).timestamp() - zero
        except ValueError:
            at_s = None
        if at_s is not None and at_s < 0:
            return None
    text = " ".join(line.replace(stamp[0] if stamp else "", "", 1).split())
    return LogLine(name, at_s, _SPANS.sub(r"\1", text)[:LOG_LINE_CHARS])

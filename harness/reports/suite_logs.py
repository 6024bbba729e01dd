"""The logs of a run: limited in size, and on request in the form of Dynamo's fault tolerance suite.

The suite writes one log file for each client, and one log file for all processes of the graph.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from graphquake.harness.history.history import History
from graphquake.harness.history.request import (
    Outcome,
    Request,
)

# The size limit of a log. A dying process may repeat one line until its log is huge. The repeats prove nothing more.
LOG_MAX_BYTES: Final = 1 << 20
_CODE: Final = re.compile(r"HTTP (\d{3})\Z")
ALL: Final = "all.log"


def write_client_logs(history: History, folder: Path) -> None:
    """Write `client_<i>.log.txt` for each closed-loop client: one line of JSON for each request, with all attempts at that request.

    Args:
        history: the run.
        folder: the folder for the files. It is made if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    began = history.host.began or datetime.fromtimestamp(0, UTC)
    of_clients = [r for r in history.requests if r.outcome and r.group.kind == "client"]
    of_clients.sort(key=lambda r: (r.group.number, r.number, r.attempt))
    for group, requests in groupby(of_clients, key=lambda r: r.group):
        with (folder / f"client_{group.number}.log.txt").open("w", encoding="utf-8") as file:
            for _, attempts in groupby(requests, key=lambda r: r.number):
                file.write(json.dumps(_line(began, list(attempts)), ensure_ascii=False) + "\n")


def _line(began: datetime, attempts: list[Request]) -> dict[str, Any]:
    ended = began + timedelta(seconds=attempts[-1].ended_s)
    return {
        "time": ended.isoformat(timespec="milliseconds"),
        "results": [
            {
                "status": _status(one),
                "result": one.outcome
                if one.outcome == Outcome.OK
                else f"{one.detail}: {one.message}",
                "request_elapsed_time": round(one.latency_s, 6),
            }
            for one in attempts
        ],
        "total_time": round(attempts[-1].ended_s - attempts[0].sent_s, 6),
    }


def _status(request: Request) -> int | None:
    """Return the HTTP status of an attempt, or None if the client got no status."""
    if request.outcome in (Outcome.OK, Outcome.WRONG):
        return HTTPStatus.OK.value
    code = _CODE.match(request.detail)
    return int(code[1]) if code else None


def join_process_logs(folder: Path) -> None:
    """Join the logs of all processes in a folder into `all.log`, and delete them. Each line begins with the name of its log."""
    logs = sorted(path for path in folder.glob("*.log") if path.name != ALL)
    with (folder / ALL).open("w", encoding="utf-8") as joined:
        for log in logs:
            with log.open(encoding="utf-8", errors="replace") as lines:
                joined.writelines(f"{log.stem} | {line.rstrip()}\n" for line in lines)
            log.unlink()


def bound_log(path: Path, most_bytes: int = LOG_MAX_BYTES) -> None:
    """Cut the middle out of a log that has more than `most_bytes` bytes. A note in its place says how many bytes were cut."""
    size = path.stat().st_size
    if size <= most_bytes:
        return
    half = most_bytes // 2
    with path.open("rb") as file:
        begin = file.read(half)
        file.seek(size - half)
        end = file.read(half)
    note = f"\n… {size - 2 * half} bytes left out …\n".encode()
    path.write_bytes(begin + note + end)

"""Run searches as processes of their own, some of them side by side, and collect what they print."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_J = TypeVar("_J")


def run_jobs(
    jobs: Iterable[_J],
    arguments_of: Callable[[_J], Sequence[str]],
    take: Callable[[_J, dict[str, Any], float], None],
    side_by_side: int,
) -> None:
    """Run one Python process for each job. A process that fails is reported to stderr, and gives no result.

    Args:
        jobs: the jobs, in the order in which they begin.
        arguments_of: the command line of a job, without the Python.
        take: called with each job, the JSON object that its process printed, and the seconds that it took. Calls may overlap.
        side_by_side: the number of processes at once.
    """

    def go(job: _J) -> None:
        begun_s = time.monotonic()
        command = [sys.executable, *arguments_of(job)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        took_s = time.monotonic() - begun_s
        if ended.returncode:
            print(f"{took_s:4.0f} s  {job}: {ended.stderr[-2000:]}", file=sys.stderr, flush=True)
            return
        take(job, json.loads(ended.stdout), took_s)

    with ThreadPoolExecutor(side_by_side) as pool:
        list(pool.map(go, jobs))

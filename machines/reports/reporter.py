"""The progress line of a search. On a terminal it is redrawn in place. Elsewhere plain lines are written now and then.

It shows the plan that runs, the phase, the request rate, failures, findings and the time that is left.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from typing import Final, TextIO

from graphquake.harness.run.status import RunStatus
from graphquake.harness.spec.plan import Plan
from graphquake.machines.reports.finding_text import counted
from graphquake.machines.runners.budget import Budget, duration_text
from graphquake.machines.runners.run_log import RunLog

# Without a terminal: at most one line for each run, and at least this many seconds between two lines.
PLAIN_EVERY_S: Final = 10.0


class Reporter:
    """Writes progress to a stream.

    Args:
        stream: the stream. None means the terminal behind pytest's capturing. On a terminal the line is redrawn in place.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        # Pytest captures sys.stdout in tests. The terminal is behind sys.__stderr__.
        self._stream = stream or sys.__stderr__ or sys.stderr
        self._live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._drawn = False
        self._last_s = 0.0
        self._last_plan: Plan | None = None
        self.graph = ""
        self.journal: RunLog | None = None
        self.budget: Budget | None = None
        self.gpus = 0
        self.findings = 0

    def begin(self, graph: str, journal: RunLog, budget: Budget, gpus: int = 0) -> None:
        """Show the progress of another graph from now on, and count its findings from 0.

        Args:
            graph: the name of the graph.
            journal: the log of the graph's runs.
            budget: the budget of the graph's runs.
            gpus: the number of GPUs that one run takes.
        """
        self.graph, self.journal, self.budget, self.findings = graph, journal, budget, 0
        self.gpus = gpus

    def __call__(self, plan: Plan, why: str, status: RunStatus) -> None:
        """Show the state of a run of the plan: its purpose `why`, its phase, its requests and its failures."""
        text = self._text(plan, why, status)
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[2K{text[:width]}")
            self._drawn = True
            return
        now_s = time.monotonic()
        if plan != self._last_plan and now_s - self._last_s >= PLAIN_EVERY_S:
            self._last_s, self._last_plan = now_s, plan
            self._write(text + "\n")

    def _text(self, plan: Plan, why: str, status: RunStatus) -> str:
        parts = [self.graph]
        if self.journal is not None and self.budget is not None:
            if math.isfinite(self.budget.total_s):
                parts.append(f"{duration_text(int(self.budget.left_s))} left")
            cost = f", {self.journal.live_s * self.gpus:.0f} GPU-seconds" if self.gpus else ""
            runs = counted(self.journal.live.total(), "run")
            parts.append(f"{runs}{cost}, {counted(self.findings, 'finding')}")
        step = f" {status.step + 1}/{len(plan.steps)}" if status.step >= 0 else ""
        rate = status.sent / status.now_s if status.now_s > 0 else 0.0
        parts += [
            f"{why}: {status.phase}{step}",
            f"{rate:.0f} requests/s, {status.failed} failed",
            plan.one_line(),
        ]
        return " · ".join(parts)

    def line(self, text: str) -> None:
        """Write a line that stays on the screen."""
        self.clear()
        self._write(text + "\n")

    def clear(self) -> None:
        """Remove the progress line."""
        if self._drawn:
            self._write("\r\x1b[2K")
            self._drawn = False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # A search goes on if its terminal was closed.
            self._live = False

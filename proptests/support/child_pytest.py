"""Run pytest in a child process, in a folder that stands for a user's project."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from support.toys import TOY, left_of

# More than the longest of these sessions takes on a busy machine.
ENDS_WITHIN_S: Final = 240.0


def start(project: Path, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """Start a pytest in a project's folder. Its standard output and error arrive in one pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(TOY.parent.parent), "COLUMNS": "100", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_heed_interrupts,  # noqa: PLW1509 - there are no threads here
    )


def _heed_interrupts() -> None:
    """Restore SIGINT: a shell that runs the tests in the background lets them and their children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(project: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """Run a pytest in a project's folder to its end, and assert that it left no process of a graph running.

    Returns:
        Its exit status and its output.
    """
    with start(project, *arguments, **env) as process:
        out, _ = process.communicate(timeout=ENDS_WITHIN_S)
    assert left_of(process.pid) == []
    return process.returncode, out

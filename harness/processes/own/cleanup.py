"""Run the commands that undo steps of the user's own, after a harness that died has not run them.

The guard becomes this process at its end (`python -I -S cleanup.py COMMANDS`), when all processes of the graph have ended. COMMANDS is a
JSON list. Each command is `[argv, env, cwd, log path, time limit in seconds]`. The commands run one after the other, outside of the graph's
namespaces. A command that takes too long is killed, with its process session.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path


def carry_out(argv: list[str], env: dict[str, str], cwd: str, log: str, within_s: float) -> None:
    """Run one command. If it can't be started, the reason is written into its log."""
    with Path(log).open("ab") as file:
        try:
            process = subprocess.Popen(
                argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            file.write(f"{error}\n".encode())
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(within_s)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    for command in json.loads(sys.argv[1]):
        carry_out(*command)

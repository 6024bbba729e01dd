"""A worker that can't spill a request to its disk dies.

Modelled on modin 5659: a worker of Ray spills to a full disk (ENOSPC), and dies of the error.

In: decode
Breaks: blast_radius
Graph: roles.decode.disk_mib = 4
Plan: squeeze decode 0 disk for 2.00 s
"""

from __future__ import annotations

import os
from pathlib import Path

from graphquake.harness.reference.node import main
from graphquake.harness.reference.wire import Call, Message
from graphquake.harness.reference.worker import Worker


class Bug(Worker):
    """Keeps a file for each request that it works on."""

    async def decode(self, call: Call, message: Message) -> None:
        """Write the file first, and remove it afterwards. An error of the disk ends the process."""
        spilled = Path(os.environ["TMPDIR"], message["kv"])
        try:
            spilled.write_text(f"{message}\n")
        except OSError:
            os._exit(1)
        try:
            await super().decode(call, message)
        finally:
            spilled.unlink()


if __name__ == "__main__":
    main(Bug)

"""A killed decode worker leaves a lock file behind, and its next incarnation does not start.

Modelled on vllm 55510: a kill -9 of the parent leaves resources behind, and the restart fails.

In: decode
Breaks: blast_radius
Plan: kill decode 0
"""

from __future__ import annotations

import os
from pathlib import Path

from graphquake.harness.reference.node import Lost, main
from graphquake.harness.reference.worker import Worker


class Bug(Worker):
    """Uses a lock file to run once at a time."""

    has_lock = False

    @property
    def lock(self) -> Path:
        """The lock file of this port."""
        return Path(os.environ["HOME"], f"lock-{self.port}")

    async def listen(self) -> None:
        """Listen unless the lock file exists."""
        if self.lock.exists():
            raise Lost(f"port {self.port} is in use: {self.lock} exists")
        self.lock.touch()
        self.has_lock = True
        await super().listen()

    async def close(self) -> None:
        """Shut down in order and remove the lock file."""
        await super().close()
        if self.has_lock:
            self.lock.unlink()


if __name__ == "__main__":
    main(Bug)

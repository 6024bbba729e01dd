"""A decode worker that was killed leaves a lock behind, for which its successor does not start.

Modelled on vllm 55510: kill -9 of the parent leaves what it held, and the restart fails for it.

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
    """One at a time, by a file."""

    has_lock = False

    @property
    def lock(self) -> Path:
        """The file."""
        return Path(os.environ["HOME"], f"lock-{self.port}")

    async def listen(self) -> None:
        """Not if somebody else does, or did."""
        if self.lock.exists():
            raise Lost(f"port {self.port} is in use: {self.lock} exists")
        self.lock.touch()
        self.has_lock = True
        await super().listen()

    async def close(self) -> None:
        """In order."""
        await super().close()
        if self.has_lock:
            self.lock.unlink()


if __name__ == "__main__":
    main(Bug)

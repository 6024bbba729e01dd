"""A worker counts its unclean ends in a file. After three of them it refuses to start, until somebody removes the file.

Modelled on redpanda PR 8122: a crash loop limit that counts unclean shutdowns, and refuses each later start.

In: decode
Breaks: blast_radius
Plan: crash decode 0 3 times, 300 ms after each start
"""

from __future__ import annotations

import os
from pathlib import Path

from graphquake.harness.reference.node import Lost, main
from graphquake.harness.reference.worker import Worker

LIMIT = 3


class Bug(Worker):
    """Writes a mark for each start, and removes all marks at a clean end."""

    @property
    def marks(self) -> Path:
        """The file with one byte for each start since the last clean end."""
        return Path(os.environ["HOME"], f"starts-{self.port}")

    async def listen(self) -> None:
        """Listen unless too many starts in a row had no clean end."""
        with self.marks.open("a") as file:
            file.write(".")
        if self.marks.stat().st_size > LIMIT:
            raise Lost(f"{LIMIT} crashes in a row; remove {self.marks} to start again")
        await super().listen()

    async def close(self) -> None:
        """Shut down in order, and forget the starts."""
        await super().close()
        self.marks.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Bug)

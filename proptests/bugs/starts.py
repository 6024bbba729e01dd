"""Count the starts of a replica in its graph, which a single process cannot know."""

from __future__ import annotations

import os
from pathlib import Path


def count(replica: str) -> int:
    """Return how often the replica was started, this start included. Call it once in each incarnation."""
    with Path(os.environ["HOME"], f"starts of {replica}").open("a+") as file:
        file.write(".")
        file.flush()
        return file.tell()

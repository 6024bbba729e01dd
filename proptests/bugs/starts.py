"""How often a replica was started in its graph: what a process can't know of itself."""

from __future__ import annotations

import os
from pathlib import Path


def count(replica: str) -> int:
    """How often, this time included; to be asked once in each life."""
    with Path(os.environ["HOME"], f"starts of {replica}").open("a+") as file:
        file.write(".")
        file.flush()
        return file.tell()

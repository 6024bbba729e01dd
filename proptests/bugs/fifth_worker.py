"""A processor has room for four decode workers in its life. The fifth one ends it.

Modelled on dynamo PR 1548: the map of inhibited instances grows, since a restarted worker has a new id.

In: processor
Breaks: blast_radius
Plan: kill decode 0; respawn decode 0; wait until ready; kill decode 0; kill decode 1
"""

from __future__ import annotations

import os

from graphquake.harness.reference.membership import Instance
from graphquake.harness.reference.node import main
from graphquake.harness.reference.processor import Processor

ROOM = 4


class Bug(Processor):
    """Never removes an instance from its map."""

    met: frozenset[str] = frozenset()

    async def choose(self, role: str) -> Instance:
        """Give each listed instance a place in the map."""
        self.met |= {one.id for one in self.directory.of_role("decode")}
        if len(self.met) > ROOM:
            os._exit(1)
        return await super().choose(role)


if __name__ == "__main__":
    main(Bug)

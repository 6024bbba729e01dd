"""The ranks of an engine do not notice that their worker is gone.

Modelled on dynamo 308 and 1889: engine children are orphaned by a kill and still hold the GPU.

In: prefill, decode
Breaks: no_leak
Plan: kill decode 0 process
"""

from __future__ import annotations

import sys
import time

from graphquake.harness.reference import rank
from graphquake.harness.reference.engine import Engine
from graphquake.harness.reference.node import main
from graphquake.harness.reference.worker import Worker


class Deaf(rank.Rank):
    """Waits for orders that nobody gives."""

    def run(self) -> None:
        """The end of the orders is no end."""
        try:
            super().run()
        except (EOFError, ConnectionError):
            time.sleep(600)


if __name__ == "__main__":
    if "--rank" in sys.argv:
        rank.main(Deaf)
    else:
        Engine.rank_program = (__file__,)
        main(Worker)

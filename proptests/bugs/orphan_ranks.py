"""The ranks of an engine do not notice that their worker died.

Modelled on dynamo 308 and 1889: a kill orphans the children of an engine, and they still hold the GPU.

In: prefill, decode
Breaks: no_leak
Plan: kill decode 0 process
"""

from __future__ import annotations

import time

from graphquake.harness.reference import rank
from graphquake.harness.reference.engine import Engine
from graphquake.harness.reference.node import main
from graphquake.harness.reference.worker import Worker


class Deaf(rank.Rank):
    """Waits for orders after its worker died."""

    def run(self) -> None:
        """Go on sleeping when the control socket is closed."""
        try:
            super().run()
        except (EOFError, ConnectionError):
            time.sleep(600)


if __name__ == "__main__":
    Engine.rank_kind = Deaf
    main(Worker)

"""A worker whose engine is frozen goes on to say that it works on its requests.

Modelled on sglang 6624: the scheduler is dead, and the liveness probe still returns 200.

In: decode
Breaks: ends
Plan: stall decode 0 rank for 4.00 s
"""

from __future__ import annotations

from graphquake.harness.reference.engine import Engine
from graphquake.harness.reference.node import main
from graphquake.harness.reference.worker import Worker


class Patient(Engine):
    """Waits for its ranks, however long they take. Its worker sends beats meanwhile, so nobody gives up."""

    @property
    def is_stuck(self) -> bool:
        """Never call the engine stuck."""
        return False


if __name__ == "__main__":
    Worker.engine_kind = Patient
    main(Worker)

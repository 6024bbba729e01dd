"""A worker that answered too slowly once is avoided until it restarts.

Modelled on dynamo 11583: a transient failure quarantines a healthy worker.

In: processor
Breaks: error_window, recovery
Plan: stall prefill 0 for 1.20 s
"""

from __future__ import annotations

from graphquake.harness.reference.membership import Instance
from graphquake.harness.reference.node import main
from graphquake.harness.reference.processor import Processor, Unavailable


class Bug(Processor):
    """Avoids an instance for the rest of its life."""

    bad: frozenset[str] = frozenset()

    def avoid(self, instance: Instance) -> None:
        """Remember the instance without an end."""
        self.bad |= {instance.id}

    def is_avoided(self, instance: Instance) -> bool:
        """Look the instance up by its id, which is new for each incarnation."""
        return instance.id in self.bad

    async def choose(self, role: str) -> Instance:
        """Fail rather than choose an avoided instance."""
        instance = await super().choose(role)
        if self.is_avoided(instance):
            raise Unavailable(f"{instance.name} is in quarantine")
        return instance


if __name__ == "__main__":
    main(Bug)

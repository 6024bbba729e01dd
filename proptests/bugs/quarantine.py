"""A worker that was slow to answer once is kept in quarantine, and there is no way out of it.

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
    """What was avoided once is avoided as long as it lives."""

    bad: frozenset[str] = frozenset()

    def avoid(self, instance: Instance) -> None:
        """For ever."""
        self.bad |= {instance.id}

    def is_avoided(self, instance: Instance) -> bool:
        """By incarnation."""
        return instance.id in self.bad

    async def choose(self, role: str) -> Instance:
        """Rather nobody than one that failed."""
        instance = await super().choose(role)
        if self.is_avoided(instance):
            raise Unavailable(f"{instance.name} is in quarantine")
        return instance


if __name__ == "__main__":
    main(Bug)

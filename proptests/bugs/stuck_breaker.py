"""A worker that failed is never asked again, and neither is a later incarnation with its name.

Modelled on sglang 31206: a breaker is stuck half open, and a healthy prefill worker counts as dead for ever.

In: processor
Breaks: error_window, recovery
Plan: kill prefill 0
"""

from __future__ import annotations

from graphquake.harness.reference.membership import Instance
from graphquake.harness.reference.node import main
from graphquake.harness.reference.processor import Processor, Unavailable


class Bug(Processor):
    """Has a circuit breaker for each name, which never closes."""

    broken: frozenset[str] = frozenset()

    def avoid(self, instance: Instance) -> None:
        """Remember the name without an end."""
        self.broken |= {instance.name}

    def is_avoided(self, instance: Instance) -> bool:
        """Look the instance up by its name, which all incarnations share."""
        return instance.name in self.broken

    async def choose(self, role: str) -> Instance:
        """Fail rather than choose an avoided instance."""
        instance = await super().choose(role)
        if self.is_avoided(instance):
            raise Unavailable(f"the breaker of {instance.name} is open")
        return instance


if __name__ == "__main__":
    main(Bug)

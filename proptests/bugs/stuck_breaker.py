"""A worker that failed is never asked again, nor is who comes after it under its name.

Modelled on sglang 31206: breaker stuck half open, a healthy prefill worker counts as dead for ever.

In: processor
Breaks: error_window, recovery
Plan: kill prefill 0
"""

from __future__ import annotations

from graphquake.harness.reference.membership import Instance
from graphquake.harness.reference.node import main
from graphquake.harness.reference.processor import Processor, Unavailable


class Bug(Processor):
    """A breaker by name, which nothing closes."""

    broken: frozenset[str] = frozenset()

    def avoid(self, instance: Instance) -> None:
        """For ever."""
        self.broken |= {instance.name}

    def is_avoided(self, instance: Instance) -> bool:
        """By name."""
        return instance.name in self.broken

    async def choose(self, role: str) -> Instance:
        """Rather nobody than one that failed."""
        instance = await super().choose(role)
        if self.is_avoided(instance):
            raise Unavailable(f"the breaker of {instance.name} is open")
        return instance


if __name__ == "__main__":
    main(Bug)

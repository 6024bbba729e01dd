"""A prefill worker that fails while a decode worker is avoided blocks the whole processor.

Modelled on dynamo 11583 and 732: an instance that is inhibited while others are is never asked again.

In: processor
Breaks: error_window
Graph: roles.prefill.replicas = 2
Plan: kill decode 0; kill prefill 0
"""

from __future__ import annotations

import time

from graphquake.harness.reference.membership import Instance
from graphquake.harness.reference.node import main
from graphquake.harness.reference.processor import AVOID_S, Processor, Unavailable


class Bug(Processor):
    """Does not survive a failure within another failure."""

    decode_out_until_s = 0.0
    is_locked = False

    def avoid(self, instance: Instance) -> None:
        """Lock if a prefill worker fails while a decode worker is avoided."""
        super().avoid(instance)
        if instance.role == "decode":
            self.decode_out_until_s = time.monotonic() + AVOID_S
        elif time.monotonic() < self.decode_out_until_s:
            self.is_locked = True

    async def choose(self, role: str) -> Instance:
        """Choose no instance if locked."""
        if self.is_locked:
            raise Unavailable("no way out of a double failure")
        return await super().choose(role)


if __name__ == "__main__":
    main(Bug)

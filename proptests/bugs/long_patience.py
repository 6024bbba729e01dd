"""The processor waits up to 30 s for a silent worker, as long as the registry lists that worker. Clients wait for less.

Modelled on Dynamo 1.6: a worker that is cut off from the frontend costs each request that is sent there 5 s, since its lease goes on.

In: processor
Breaks: ends, error_window
Graph: network = "namespaces"
Plan: cut decode 0 from processor 0 for 5.00 s
"""

from __future__ import annotations

import time

from graphquake.harness.reference.membership import Instance
from graphquake.harness.reference.node import main
from graphquake.harness.reference.processor import SILENCE_MAX_S, Failed, Processor
from graphquake.harness.reference.wire import Call, Gone, Message

PATIENCE_S = 30.0


class Bug(Processor):
    """Trusts the registry more than its own ears."""

    async def said(self, opened: Call, instance: Instance) -> Message:
        """Return the next answer of an instance, and wait for it while the instance is listed."""
        until_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                said, _ = await opened.receive(SILENCE_MAX_S)
            except Gone as gone:
                listed = instance in self.directory.of_role(instance.role)
                if str(gone) == "silent" and listed and time.monotonic() < until_s:
                    continue
                self.avoid(instance)
                raise Failed(f"{instance.name}: {gone}") from None
            if "error" in said:
                self.avoid(instance)
                raise Failed(f"{instance.name}: {said['error']}")
            return said


if __name__ == "__main__":
    main(Bug)

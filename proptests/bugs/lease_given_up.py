"""A decode worker that can't reach the registry for one lease gives its lease up, and never asks for a new one.

Modelled on dynamo 3493: a brief blip on the way to the registry, and leases are lost and never taken again.

In: decode
Breaks: error_window, recovery, views_agree
Graph: network = "namespaces"
Plan: cut decode from registry for 4.00 s
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time

from graphquake.harness.reference.membership import (
    ANSWER_MAX_S,
    LEASE_S,
    RENEW_EVERY_S,
    RETRY_S,
    Member,
)
from graphquake.harness.reference.node import main
from graphquake.harness.reference.wire import Gone, ask
from graphquake.harness.reference.worker import Worker

# The error of a connection that nobody answers has no text. A registry that is down or stopped gives another error.
UNREACHED = re.compile(r": $")


class GivesUp(Member):
    """Stops renewing after one lease without a way to the registry. A registry that refuses connections is on its way back."""

    async def _renew(self, registry: str) -> None:
        renewing = {"do": "renew", "instance": self.instance.said}
        reached_s = time.monotonic()
        while time.monotonic() - reached_s < LEASE_S:
            try:
                await ask(registry, renewing, ANSWER_MAX_S)
            except Gone as gone:
                if UNREACHED.search(str(gone)) is None:
                    reached_s = time.monotonic()
                await asyncio.sleep(RETRY_S)
            else:
                reached_s = time.monotonic()
                self._joined.set()
                await asyncio.sleep(RENEW_EVERY_S)


class Bug(Worker):
    """A worker with such a lease."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self._member = GivesUp(self.instance, arguments.registries)


if __name__ == "__main__":
    main(Bug)

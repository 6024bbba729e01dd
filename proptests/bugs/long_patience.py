"""The processor waits up to 30 s for a silent worker, as long as the registry lists that worker. Clients wait for less.

Modelled on Dynamo 1.6: a worker that is cut off from the frontend costs each request that is sent there 5 s, since its lease goes on.

In: processor
Breaks: ends, error_window
Graph: network = "namespaces"
Plan: cut decode 0 from processor 0 for 5.00 s
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

from graphquake.harness.reference.membership import Instance
from graphquake.harness.reference.node import main
from graphquake.harness.reference.processor import SILENCE_MAX_S, Failed, Processor
from graphquake.harness.reference.wire import NO_ANSWER, Call, Gone, Message, call

PATIENCE_S = 30.0


class Bug(Processor):
    """Trusts the registry more than its own ears."""

    async def asked(self, role: str, message: Message, answers: int) -> AsyncGenerator[Message]:
        """Ask an instance that does not answer again and again, while it is listed."""
        async with self.chosen(role) as instance:
            opened = await self.opened(instance, message)
            try:
                for _ in range(answers):
                    yield await self.said(opened, instance)
            finally:
                opened.close()

    async def opened(self, instance: Instance, message: Message) -> Call:
        """Connect to an instance, with as many attempts as it takes."""
        until_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await call(instance.address, message)
            except Gone as gone:
                self.check(instance, gone, until_s)

    async def said(self, opened: Call, instance: Instance) -> Message:
        """Return the next answer of an instance, with as much patience."""
        until_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                said, _ = await opened.receive(SILENCE_MAX_S)
            except Gone as gone:
                self.check(instance, gone, until_s)
                continue
            if "error" in said:
                self.avoid(instance)
                raise Failed(f"{instance.name}: {said['error']}")
            return said

    def check(self, instance: Instance, gone: Gone, until_s: float) -> None:
        """Go on if an instance is silent but listed, and patience lasts. Otherwise fail."""
        silent = str(gone).endswith(("silent", NO_ANSWER))
        listed = instance in self.directory.of_role(instance.role)
        if not silent or not listed or time.monotonic() >= until_s:
            self.avoid(instance)
            raise Failed(f"{instance.name}: {gone}") from None


if __name__ == "__main__":
    main(Bug)

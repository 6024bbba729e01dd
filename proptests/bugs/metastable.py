"""After a burst that overloads it, a processor refuses requests for as long as they keep coming.

Modelled on dynamo 14456 and on metastable failures: the overload outlasts its cause.

In: processor
Breaks: throughput
Plan: burst 40 over 0.00 s
"""

from __future__ import annotations

import argparse
import time
from collections import deque

from graphquake.harness.reference.node import main
from graphquake.harness.reference.processor import Processor
from graphquake.harness.reference.wire import Call, Message

TOO_MANY = 30
CALM_PER_S = 10
ONE_IN = 3


class Bug(Processor):
    """Counts refused requests as load."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.came: deque[float] = deque(maxlen=CALM_PER_S)
        self.number = 0
        self.overloaded = False

    async def on_call(self, call: Call, message: Message) -> None:
        """Refuse one request in a few while overloaded. It stays overloaded until hardly any request comes."""
        now_s = time.monotonic()
        calm = len(self.came) < CALM_PER_S or now_s - self.came[0] > 1
        self.came.append(now_s)
        self.number += 1
        self.overloaded = self.in_flight > TOO_MANY or (self.overloaded and not calm)
        if self.overloaded and self.number % ONE_IN == 0:
            await call.send({"error": "busy"})
        else:
            await super().on_call(call, message)


if __name__ == "__main__":
    main(Bug)

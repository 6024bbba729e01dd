"""A request whose client left stays counted as in flight.

Modelled on dynamo 12315: booking leaks after a client vanished, the in-flight count is stuck.

In: frontend
Breaks: no_leak
Plan: burst 5 over 0.00 s, 100% leave
"""

from __future__ import annotations

import sys

from graphquake.harness.reference.frontend import Frontend, Refused
from graphquake.harness.reference.node import main


class Bug(Frontend):
    """Books out too seldom."""

    def leave(self) -> None:
        """Only what came to an answer is booked out."""
        if sys.exc_info()[0] in (None, Refused):
            super().leave()


if __name__ == "__main__":
    main(Bug)

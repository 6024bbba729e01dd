"""A request whose client left still counts as in flight.

Modelled on dynamo 12315: a booking leaks after a client left, and the in-flight count stays too high.

In: frontend
Breaks: no_leak
Plan: burst 5 over 0.00 s, 100% leave
"""

from __future__ import annotations

import sys

from graphquake.harness.reference.frontend import Frontend, Refused
from graphquake.harness.reference.node import main


class Bug(Frontend):
    """Does not count down when a client left."""

    def leave(self) -> None:
        """Count down only if the request got an answer."""
        if sys.exc_info()[0] in (None, Refused):
            super().leave()


if __name__ == "__main__":
    main(Bug)

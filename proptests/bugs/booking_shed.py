"""Requests whose clients left fill the frontend up, until it refuses everybody.

Modelled on dynamo 12315: booking leaks after clients vanished, later 97% are shed with 429 until a restart.

In: frontend
Breaks: recovery, throughput
Graph: promises.no_leak.gauges = []
Plan: burst 20 over 0.25 s, 100% leave
"""

from __future__ import annotations

import argparse
import sys

from graphquake.harness.reference.frontend import Frontend, Refused
from graphquake.harness.reference.node import main

ROOM = 12


class Bug(Frontend):
    """Books out too seldom, and has room for a few."""

    @classmethod
    def options(cls, parser: argparse.ArgumentParser) -> None:
        """Room for a few."""
        super().options(parser)
        parser.set_defaults(max_in_flight=ROOM)

    def leave(self) -> None:
        """Only what came to an answer is booked out."""
        if sys.exc_info()[0] in (None, Refused):
            super().leave()


if __name__ == "__main__":
    main(Bug)

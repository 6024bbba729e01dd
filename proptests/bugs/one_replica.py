"""One decode worker, and only that one, restarts with other weights.

Modelled on dynamo 11855: a restarted worker serves another model than the one listed.

In: decode
Breaks: answers
Plan: kill decode 1
"""

from __future__ import annotations

import argparse

import starts

from graphquake.harness.reference.node import main
from graphquake.harness.reference.worker import Worker


class Bug(Worker):
    """Loads other weights from its second incarnation on."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        if arguments.name == "decode 1" and starts.count(arguments.name) > 1:
            arguments.seed += 1
        super().__init__(arguments)


if __name__ == "__main__":
    main(Bug)

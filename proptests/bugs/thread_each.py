"""The processor starts a thread for each worker that registers, and never ends one.

Modelled on dynamo 10729 and 13077: threads and memory of the frontend grow with each rebuilt set of workers, up to 7,191 threads.

In: processor
Breaks: no_growth
Plan: crash decode 1 8 times, 1500 ms after each start; stay 5 s
"""

from __future__ import annotations

import argparse
import threading

from graphquake.harness.reference.membership import Instance
from graphquake.harness.reference.node import main
from graphquake.harness.reference.processor import Processor


class Bug(Processor):
    """Watches each worker for ever."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.watched: set[str] = set()

    async def choose(self, role: str) -> Instance:
        """Start to watch the workers that are new."""
        chosen = await super().choose(role)
        for one in self.directory.of_role(role):
            if one.id not in self.watched:
                self.watched.add(one.id)
                threading.Thread(target=threading.Event().wait, daemon=True).start()
        return chosen


if __name__ == "__main__":
    main(Bug)

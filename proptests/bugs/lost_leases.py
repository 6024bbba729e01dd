"""A registry that has lost sight of somebody once takes no renewal of that lease any more, after a restart neither.

Modelled on dynamo 3493: a brief blip of the registry, leases lost and never taken again.

In: registry
Breaks: error_window, views_agree, recovery
Plan: kill registry 0; stay 3.50 s
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from graphquake.harness.reference.membership import Instance
from graphquake.harness.reference.node import main
from graphquake.harness.reference.registry import Registry


class Bug(Registry):
    """Whoever was known, and is not now, has lost its lease."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.known = Path(os.environ["HOME"], "known")
        self.known.touch()

    def renew(self, instance: Instance) -> None:
        """Not what was lost."""
        if instance.id in self.leases:
            super().renew(instance)
        elif instance.id not in self.known.read_text().split():
            with self.known.open("a") as file:
                file.write(f"{instance.id}\n")
            super().renew(instance)


if __name__ == "__main__":
    main(Bug)

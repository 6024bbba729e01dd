"""A registry refuses to renew a lease that it lost once. It refuses after a restart as well.

Modelled on dynamo 3493: after a short outage of the registry, leases are lost and never accepted again.

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
    """Remembers in a file which leases it has seen."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.known = Path(os.environ["HOME"], "known")
        self.known.touch()

    def renew(self, instance: Instance) -> None:
        """Renew a lease unless it was lost."""
        if instance.id in self.leases:
            super().renew(instance)
        elif instance.id not in self.known.read_text().split():
            with self.known.open("a") as file:
                file.write(f"{instance.id}\n")
            super().renew(instance)


if __name__ == "__main__":
    main(Bug)

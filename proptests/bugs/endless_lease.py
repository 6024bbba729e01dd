"""A lease ends only if it was renewed at least once: who dies within half a second of joining stays listed.

Modelled on dynamo 3493: leases that nobody looks after.

In: registry
Breaks: views_agree
Plan: kill decode 0; respawn decode 0; wait until ready; kill decode 0
"""

from __future__ import annotations

import math

from graphquake.harness.reference.membership import Instance
from graphquake.harness.reference.node import main
from graphquake.harness.reference.registry import Registry


class Bug(Registry):
    """The first lease is one for ever."""

    def renew(self, instance: Instance) -> None:
        """Only renewals give it an end."""
        is_new = instance.id not in self.leases
        super().renew(instance)
        if is_new:
            self.leases[instance.id].until_s = math.inf


if __name__ == "__main__":
    main(Bug)

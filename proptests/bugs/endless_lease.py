"""A lease ends only if it was renewed at least once. A worker that dies within half a second of joining stays listed.

Modelled on dynamo 3493: leases that are never cleaned up.

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
    """Grants a first lease without an end."""

    def renew(self, instance: Instance) -> None:
        """Give the lease an end only if it is renewed."""
        is_new = instance.id not in self.leases
        super().renew(instance)
        if is_new:
            self.leases[instance.id].until_s = math.inf


if __name__ == "__main__":
    main(Bug)

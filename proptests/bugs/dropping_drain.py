"""A frontend that gets SIGTERM ends at once, and drops the answers that it is giving.

Modelled on dynamo 13559: everything in flight is aborted after SIGTERM, although admitted requests should complete.

In: frontend
Breaks: drain
Graph: roles.frontend.replicas = 2
Graph: load.max_tokens = 60
Plan: terminate frontend 0
"""

from __future__ import annotations

from graphquake.harness.reference.frontend import Frontend
from graphquake.harness.reference.node import main


class Bug(Frontend):
    """Does not wait for its work."""

    def is_drained(self) -> bool:
        """Say that no request is left."""
        return True


if __name__ == "__main__":
    main(Bug)

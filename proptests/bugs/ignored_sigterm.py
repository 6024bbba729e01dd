"""The frontend ignores SIGTERM. Its in-flight requests are lost at the final SIGKILL.

Modelled on dynamo PR 3481: the frontend ignores SIGTERM; requests are dropped at the final kill.

In: frontend
Breaks: error_window
Graph: roles.frontend.replicas = 2
Graph: roles.frontend.stop_s = 2
Plan: terminate frontend 0
"""

from __future__ import annotations

import asyncio

from graphquake.harness.reference.frontend import Frontend
from graphquake.harness.reference.node import main


class Bug(Frontend):
    """Does not drain."""

    async def drain(self) -> None:
        """Go on as if no SIGTERM had come."""
        await asyncio.Event().wait()


if __name__ == "__main__":
    main(Bug)

"""The frontend ignores SIGTERM, and what it works on is lost when it is killed in the end.

Modelled on dynamo PR 3481: the frontend ignores SIGTERM, requests are dropped at the final kill.

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
    """Does not let itself be told."""

    async def drain(self) -> None:
        """Goes on as if nothing had been said."""
        await asyncio.Event().wait()


if __name__ == "__main__":
    main(Bug)

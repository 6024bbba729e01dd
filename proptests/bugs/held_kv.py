"""A prefill worker keeps a KV until somebody fetches it, and nobody may.

Modelled on dynamo 14456: 937 leaked; what a client left behind.

In: prefill
Breaks: no_leak
Plan: burst 20 over 0.00 s, 100% leave
"""

from __future__ import annotations

import secrets

from graphquake.harness.reference.node import main
from graphquake.harness.reference.worker import Worker


class Bug(Worker):
    """Patient."""

    def hold(self, kv: bytes) -> str:
        """For ever."""
        key = secrets.token_hex(8)
        self._held[key] = kv
        return key


if __name__ == "__main__":
    main(Bug)

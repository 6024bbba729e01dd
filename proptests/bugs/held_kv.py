"""A prefill worker keeps a KV until it is fetched, and it may never be fetched.

Modelled on dynamo 14456: clients left, and 937 KVs leaked.

In: prefill
Breaks: no_leak
Plan: burst 20 over 0.00 s, 100% leave
"""

from __future__ import annotations

import secrets

from graphquake.harness.reference.node import main
from graphquake.harness.reference.worker import Worker


class Bug(Worker):
    """Never drops a KV."""

    def hold(self, kv: bytes) -> str:
        """Keep every KV until it is fetched."""
        key = secrets.token_hex(8)
        self._held[key] = kv
        return key


if __name__ == "__main__":
    main(Bug)

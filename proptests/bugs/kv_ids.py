"""A restarted prefill worker numbers its KVs from 1 again, and decode workers have cached KVs with those numbers.

Modelled on vllm 49238: prefill restarts, and decode uses the KVs of the incarnation before.

In: prefill, decode
Breaks: answers
Plan: kill prefill 0
"""

from __future__ import annotations

import argparse
import itertools
import secrets
from unittest.mock import patch

from graphquake.harness.reference.node import main
from graphquake.harness.reference.wire import Message
from graphquake.harness.reference.worker import Worker

CACHE_MAX = 256


class Bug(Worker):
    """Caches KVs by an id that is not unique."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.count = itertools.count(1)
        self.cache: dict[tuple[str, str], bytes] = {}

    def hold(self, kv: bytes) -> str:
        """Number the KVs of this incarnation from 1."""
        with patch.object(secrets, "token_hex", lambda _: str(next(self.count))):
            return super().hold(kv)

    async def fetch(self, message: Message) -> bytes:
        """Fetch a KV once for each number."""
        key = message["address"], message["kv"]
        if key not in self.cache and len(self.cache) < CACHE_MAX:
            self.cache[key] = await super().fetch(message)
        return self.cache.get(key) or await super().fetch(message)


if __name__ == "__main__":
    main(Bug)

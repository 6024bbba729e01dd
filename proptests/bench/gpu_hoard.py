"""A planted bug for `gpu.py`, which needs a GPU: a rank leaks 4 MiB of GPU memory for each prompt.

Modelled on dynamo 308 and 1889: GPU memory that is never freed.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from graphquake.harness.reference import model, rank
from graphquake.harness.reference.engine import Engine
from graphquake.harness.reference.node import main
from graphquake.harness.reference.worker import Worker

KEPT_MAX = 200


class Hoard(rank.Rank):
    """Never frees the memory that it takes for a prompt."""

    def __init__(self, shard: model.Shard, control: socket.socket) -> None:
        super().__init__(shard, control)
        self.kept: list[Any] = []
        prefill = shard.prefill

        def and_keep(tokens: Sequence[int]) -> tuple[int, bytes]:
            if len(self.kept) < KEPT_MAX:
                self.kept.append(shard._backend.zeros(1 << 19))
            return prefill(tokens)

        shard.prefill = and_keep  # type: ignore[method-assign]  # the bug is that it is another one


if __name__ == "__main__":
    Engine.rank_kind = Hoard
    main(Worker)

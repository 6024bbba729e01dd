"""A thread of the processor panics whenever a worker is lost. The request is tried again, so no client notices.

Modelled on sglang-router 0.1, which panics at src/router.rs when a worker is gone, and on dynamo PR 8254.

In: processor
Breaks: no_panic
Plan: kill decode 0
"""

from __future__ import annotations

import sys

from graphquake.harness.reference.membership import Instance
from graphquake.harness.reference.node import main
from graphquake.harness.reference.processor import Processor

PANIC = (
    "thread 'tokio-runtime-worker' panicked at src/router.rs:582:56:\n"
    "called `Option::unwrap()` on a `None` value"
)


class Bug(Processor):
    """Says what a Rust program says."""

    def avoid(self, instance: Instance) -> None:
        """Avoid the worker as it should be avoided."""
        super().avoid(instance)
        print(PANIC, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(Bug)

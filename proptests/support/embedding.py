"""The place in a plan where another plan is complete."""

from __future__ import annotations

from dataclasses import replace

from graphquake.harness.spec.plan import Plan
from graphquake.machines.plans.subplan import embeds


def complete_at(small: Plan, large: Plan) -> int | None:
    """The last step of the shortest prefix of `large` that `small` embeds in, or -1 if it needs no step, None if it does not embed."""
    for size in range(len(large.steps) + 1):
        if embeds(small, replace(large, steps=large.steps[:size])):
            return size - 1
    return None

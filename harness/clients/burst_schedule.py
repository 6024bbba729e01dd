"""The schedule of a burst: when each of its requests is sent, and how its client behaves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal, TypeAlias

from graphquake.harness.spec.steps.actions import BurstLike

# How a client behaves: it waits for its answer, it closes the connection after the first token or before it, or its prompt is too long.
Manner: TypeAlias = Literal["stays", "leaves", "leaves at once", "asks too much"]


def burst_schedule(burst: BurstLike, draw: random.Random) -> Iterator[tuple[float, Manner]]:
    """Yield for each request of a burst its time, in seconds from the begin of the burst, and the manner of its client."""
    leave, at_once, refused = (
        round(burst.requests * share) for share in (burst.leave, burst.leave_at_once, burst.refused)
    )
    manners: list[Manner] = ["leaves"] * leave
    manners += ["leaves at once"] * at_once
    manners += ["asks too much"] * refused
    manners += ["stays"] * (burst.requests - len(manners))
    # Each share is rounded, so together they may be one or two more than there are requests.
    del manners[burst.requests :]
    draw.shuffle(manners)
    times = sorted(draw.uniform(0.0, burst.over_s) for _ in manners)
    yield from zip(times, manners, strict=True)

"""The schedule of a burst: when each of its requests is sent, and how its client behaves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from graphquake.harness.history.request import MannerKind
from graphquake.harness.spec.steps.actions import BurstLike


@dataclass(frozen=True, slots=True)
class Manner:
    """How a client behaves.

    Attributes:
        kind: the kind of behaviour, see `MannerKind`.
        at_token: if it leaves, the number of tokens after which it does.
    """

    kind: MannerKind = "stays"
    at_token: int = 1


STAYS: Final = Manner()


def burst_schedule(burst: BurstLike, draw: random.Random) -> Iterator[tuple[float, Manner]]:
    """Yield for each request of a burst its time, in seconds from the start of the burst, and the manner of its client."""
    shares = (
        (Manner("leaves"), burst.leave),
        (Manner("leaves at once"), burst.leave_at_once),
        (Manner("asks too much"), burst.refused),
        (Manner("leaves", burst.at_token), burst.leave_later),
        (Manner("malformed"), burst.malformed),
    )
    manners = [one for one, share in shares for _ in range(round(burst.requests * share))]
    manners += [STAYS] * (burst.requests - len(manners))
    # Each share is rounded, so together they may be some more than there are requests.
    del manners[burst.requests :]
    draw.shuffle(manners)
    times = sorted(draw.uniform(0.0, burst.over_s) for _ in manners)
    yield from zip(times, manners, strict=True)

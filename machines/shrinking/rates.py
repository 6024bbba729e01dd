"""How sure k of n runs make us.

Noise is one-sided: a run that breaks a promise is proof, a run that keeps it is not. So one failure accepts a candidate, and how many
passes reject one follows from the rate at which the plan at hand is known to fail.
"""

from __future__ import annotations

import math
from typing import Final

# 1.96 is the 97.5% point of the normal distribution: a two-sided interval of 95%.
Z: Final = 1.959964
SURE: Final = 0.95


def wilson(broke: int, runs: int) -> tuple[float, float]:
    """The 95% interval of a rate, seen k times in n runs (E. B. Wilson, JASA 22, 1927).

    Args:
        broke: how many runs broke the promise.
        runs: how many runs there were; with 0 the interval is everything.
    """
    if not 0 <= broke <= runs:
        raise ValueError(f"found {broke} of {runs}, expected at least 0 and at most all")
    if runs == 0:
        return 0.0, 1.0
    share, square = broke / runs, Z * Z
    middle = (share + square / (2 * runs)) / (1 + square / runs)
    half = (
        Z / (1 + square / runs) * math.sqrt(share * (1 - share) / runs + square / (4 * runs * runs))
    )
    return max(0.0, middle - half), min(1.0, middle + half)


def passes_to_reject(rate: float, sure: float = SURE) -> int:
    """How many passes in a row say that a plan does not fail at that rate: 2 at .9, 4 at .6, 9 at .3.

    Args:
        rate: the rate at which it would fail, above 0.
        sure: how sure one wants to be.
    """
    if rate >= 1.0:
        return 1
    return math.ceil(math.log(1.0 - sure) / math.log(1.0 - rate))


def estimate(broke: int, runs: int) -> float:
    """A cautious rate from k of n: the mean after half a failure and half a pass more (Jeffreys' prior)."""
    return (broke + 0.5) / (runs + 1.0)

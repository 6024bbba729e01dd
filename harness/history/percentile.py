"""Percentiles of samples, by the nearest rank: the result is always one of the samples."""

from __future__ import annotations

import math
from collections.abc import Iterable


def percentile(values: Iterable[float], share: float) -> float | None:
    """Return the smallest sample such that at least the given share of all samples is not larger.

    Args:
        values: the samples, in any order.
        share: the share of samples, from 0 to 1, e.g. 0.99 for the 99th percentile.

    Returns:
        One of the samples, or None if there are none.
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None

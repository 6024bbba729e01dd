"""Statistics of runs: what counts of broken and kept runs say about the rate at which a plan breaks its promise.

Noise is one-sided. A run that breaks a promise is proof. A run that keeps it is not. So one broken run accepts a candidate, and the
number of kept runs that reject one follows from the rate of the plan at hand.

`wilson` is for counts that were taken for their own sake, such as a series of fresh runs. The other estimates are for the runs of a shrink.
There, plans were accepted because a run broke them, and earlier runs chose the later ones. So each estimate says to which side it errs, and
why that side is the safe one.
"""

from __future__ import annotations

import math
from typing import Final

# The 97.5% point of the normal distribution: a two-sided interval of 95%.
Z: Final = 1.959964
SURE: Final = 0.95
# A lower estimate would ask for more runs than a budget allows.
RATE_MIN: Final = 0.05


def wilson(broke: int, runs: int) -> tuple[float, float]:
    """The 95% score interval of a rate (E. B. Wilson, JASA 22, 1927).

    Args:
        broke: the number of runs that broke the promise.
        runs: the number of all runs. With none, the interval is (0, 1).

    Raises:
        ValueError: if `broke` is negative or greater than `runs`.
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
    """The number of kept runs in a row after which a plan of that rate would have broken: 2 at .9, 4 at .6, 9 at .3.

    Args:
        rate: the rate that is rejected, above 0.
        sure: the probability that a plan of that rate breaks in one of these runs.
    """
    if rate >= 1.0:
        return 1
    return math.ceil(math.log(1.0 - sure) / math.log(1.0 - rate))


def cautious(broke: float, runs: float) -> float:
    """A cautious estimate of a rate.

    It is the mean under a uniform prior (Laplace's rule of succession, 1774), but never above the share that was seen. So 10 of 10 count
    as .92: a series without a kept run does not pass for certainty. 2 of 10 count as .2. An estimate that is too low costs runs. One
    that is too high rejects plans that do break.

    Args:
        broke: the number of broken runs. Fractions stand for earlier knowledge.
        runs: the number of all runs. With none, the estimate is one half.
    """
    laplace = (broke + 1) / (runs + 2)
    return max(RATE_MIN, min(laplace, broke / runs)) if runs else laplace


def on_the_way(broke: int, runs: int) -> float:
    """The rate of a series of accepted plans, from all their runs together.

    Each plan was accepted by a run that broke it, and a candidate that was kept at first was seldom run again. So the plain share is too
    high: on simulated failures it was .97 at a rate of .9, .78 at .6, and .56 at .3. Its square is close to the truth.
    The prior, one broken run and a twentieth of a kept run, is that of most failures: they show every time.
    """
    return float(((broke + 1.0) / (runs + 1.05)) ** 2)


def chance_of_fewer(broke: int, runs: int, other_broke: int, other_runs: int) -> float:
    """The probability that a plan breaks so seldom by accident, if its rate is that of another plan.

    This is Fisher's exact test, one-sided (R. A. Fisher, 1922). It takes the number of broken runs of both plans together as given. The
    result is the probability that at most `broke` of them fall to this plan's `runs`.
    """
    all_broke, all_runs = broke + other_broke, runs + other_runs
    ways = math.comb(all_runs, all_broke)
    return (
        sum(
            math.comb(runs, k) * math.comb(other_runs, all_broke - k)
            for k in range(min(broke, all_broke) + 1)
        )
        / ways
    )

"""Statistics of runs: estimate the failure rate of a plan from the counts of its broken and kept runs.

The failure rate of a plan is the share of its runs that break the promise. Invalid runs do not count.

Noise is one-sided. A run that breaks a promise is proof. A run that keeps the promise is not. So one broken run accepts a candidate, and
the number of kept runs that reject a candidate follows from the failure rate of the minimal plan.

`wilson` is for runs whose number and plan were chosen beforehand, such as a series of fresh runs. The other estimates are for the runs of a
shrink. There, a plan is accepted because its run broke the promise, and earlier runs decide which runs follow. Such counts are biased.
So the docstring of each of these estimates says how it deals with the bias.
"""

from __future__ import annotations

import math
from typing import Final

# The 97.5% point of the normal distribution: a two-sided interval of 95%.
Z: Final = 1.959964
# The usual probability that a series of runs shows a plan that does break.
SURE: Final = 0.95
# The lowest estimate of a failure rate. A lower one would require more runs than a budget allows.
RATE_MIN: Final = 0.05


def wilson(broke: int, runs: int) -> tuple[float, float]:
    """The 95% score interval of a failure rate, as its lower and upper end (E. B. Wilson, JASA 22, 1927).

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
    """The number of kept runs in a row that rule out a given failure rate of a plan.

    With the default `sure`, the number is 2 for a failure rate of .9, 4 for .6, and 9 for .3.

    Args:
        rate: the failure rate, above 0.
        sure: the probability that at least one of these runs breaks if the plan has this failure rate.
    """
    if rate >= 1.0:
        return 1
    return math.ceil(math.log(1.0 - sure) / math.log(1.0 - rate))


def cautious(broke: float, runs: float) -> float:
    """A cautious estimate of a failure rate: it is rather too low than too high.

    The estimate is the mean under a uniform prior (Laplace's rule of succession, 1774), but never above the share of broken runs.
    10 broken runs of 10 give .92, because a series without a kept run does not prove a failure rate of 1. 2 of 10 give .2.
    An estimate that is too low costs runs. An estimate that is too high rejects plans that do break.

    Args:
        broke: the number of broken runs. Fractions stand for earlier knowledge.
        runs: the number of all runs. With none, the estimate is one half.
    """
    laplace = (broke + 1) / (runs + 2)
    return max(RATE_MIN, min(laplace, broke / runs)) if runs else laplace


def rate_of_accepted(
    broke: int, runs: int, repeated_broke: int = 0, repeated_kept: int = 0
) -> float:
    """Estimate the failure rate of the plans that a shrink accepted on the way, from the counts of all their runs together.

    Each plan was accepted because a run of it broke, and a candidate whose first run was kept was seldom run again. So the share of broken
    runs is too high. On simulated failures it was .97 for a true rate of .9, .78 for .6, and .56 for .3. Its square is close to the truth.
    The estimate begins with one broken run and a twentieth of a kept run, because most failures show in every run.
    """
    all_broke, trials = broke + repeated_broke, runs + repeated_broke + repeated_kept
    share = (all_broke + 1.0) / (trials + 1.05)
    selected = (broke + 1.0) / (all_broke + 1.0)
    return float(share ** (1.0 + selected))


def chance_of_fewer(broke: int, runs: int, other_broke: int, other_runs: int) -> float:
    """The probability that so few runs of a plan break by chance, if the plan has the same failure rate as another plan.

    This is Fisher's exact test, one-sided (R. A. Fisher, 1922). The number of broken runs of both plans together is taken as given. The
    result is the probability that at most `broke` of these broken runs are runs of the first plan.

    Args:
        broke: the number of broken runs of the first plan.
        runs: the number of all runs of the first plan.
        other_broke: the number of broken runs of the other plan.
        other_runs: the number of all runs of the other plan.
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

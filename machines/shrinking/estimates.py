"""What the runs of one shrink say about the rate of what is shrunk.

`rates` is about counts that were taken for their own sake. Here they were not: plans were accepted *because* a run broke them, and the
next thing to run was chosen by what was seen. So each estimate says which way it leans, and why that is the safe one.
"""

from __future__ import annotations

import math
from typing import Final

# Lower estimates would ask for more runs than anybody waits for.
RATE_MIN: Final = 0.05


def cautious(broke: float, runs: float) -> float:
    """A cautious estimate of a rate.

    The mean under a uniform prior (Laplace's rule of succession, 1774), but never above the share that was seen: 10 of 10 count as .92, so
    that a series without an accident does not pass for certainty, and 2 of 10 as .2. Too low an estimate costs runs, too high a one costs
    the truth.

    Args:
        broke: how many of them; parts of runs stand for what is known from elsewhere.
        runs: how many in all; for none, one half.
    """
    laplace = (broke + 1) / (runs + 2)
    return max(RATE_MIN, min(laplace, broke / runs)) if runs else laplace


def on_the_way(broke: int, runs: int) -> float:
    """The rate that a series of accepted plans speaks for, taken over all their runs.

    Each of them was accepted by the run that broke it, and a candidate that was kept at first was seldom asked again. So the plain share
    flatters: on simulated failures it was .97 at a rate of .9, .78 at .6 and .56 at .3. Its square is close to the truth.
    The prior, like one broken run and a twentieth of a kept one, is that of most failures: they show every time.
    """
    return float(((broke + 1.0) / (runs + 1.05)) ** 2)


def chance_of_fewer(broke: int, runs: int, other_broke: int, other_runs: int) -> float:
    """The chance that a plan breaks so seldom by accident, if its rate is that of another one.

    Fisher's exact test, one-sided (R. A. Fisher, 1922): all runs together have so many broken ones; how likely is it that at most `broke`
    of them fall to this plan's `runs`?
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

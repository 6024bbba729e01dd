"""Which runs of a search wait for the end of a lease. A wrong list of the graph is decided then."""

from __future__ import annotations

from typing import Final

from graphquake.harness.spec.plan import Plan
from graphquake.harness.spec.steps.kind import disturbs

# A lease of at most so many seconds is shorter than most runs.
SHORT_LEASE_S: Final = 3.0


def waits_for_lists(plan: Plan, lease_s: float) -> bool:
    """True if a search waits until this plan's wrong lists are decided, which may take a lease.

    The plans of one disturbance and those with a long stay do. If the lease is short, so do the plans of two disturbances.
    In the other plans, the wait would be most of the run.

    Args:
        plan: the plan.
        lease_s: the lease of the graph, in seconds.
    """
    few = 2 if lease_s <= SHORT_LEASE_S else 1
    return plan.stay_s > 0 or sum(map(disturbs, plan.steps)) <= few

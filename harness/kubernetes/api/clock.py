"""Map the times of a cluster to `time.monotonic()` of this process, with their uncertainty.

Each answer of the API server has a header `Date` with whole seconds. An answer that was asked for at `sent` and arrived at `got` tells that
the cluster's clock showed a time in [date, date + 1 s) at some moment in [sent, got]. So the offset between both clocks lies in an interval
of little more than a second. The answers of a run come at all parts of a second, so the intersection of their intervals is soon narrow.

Nodes have clocks of their own, which may differ from the API server's by some milliseconds where NTP runs. That part is not known here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

# Most times of the API are cut to whole seconds.
RESOLUTION_S = 1.0


class Moment(NamedTuple):
    """A time of the cluster on the clock of this process: it lies between both bounds, in `time.monotonic()` seconds."""

    earliest_s: float
    latest_s: float

    def nearest(self, at_s: float) -> float:
        """Return the time within the bounds that is nearest to another one, e.g. to the time at which this process heard of it."""
        return min(max(at_s, self.earliest_s), self.latest_s)


@dataclass(slots=True)
class ClusterClock:
    """The offset between the cluster's clock and ours: cluster time = our time + offset.

    Attributes:
        least_s: the lower bound of the offset, in seconds.
        most_s: the upper bound of the offset, in seconds.
    """

    least_s: float = -math.inf
    most_s: float = math.inf

    @property
    def uncertainty_s(self) -> float:
        """Half of the width of the interval that holds the offset. Infinite before the first answer."""
        return (self.most_s - self.least_s) / 2

    def note(self, date_s: float, sent_s: float, got_s: float) -> None:
        """Learn from one answer. If it contradicts the earlier ones, a clock was set, and only this answer counts.

        Args:
            date_s: the header `Date`, in seconds since the epoch.
            sent_s: when the request was sent, in `time.monotonic()` seconds.
            got_s: when the answer arrived, in `time.monotonic()` seconds.
        """
        least_s, most_s = date_s - got_s, date_s + RESOLUTION_S - sent_s
        if least_s > self.most_s or most_s < self.least_s:
            self.least_s, self.most_s = least_s, most_s
            return
        self.least_s, self.most_s = max(self.least_s, least_s), min(self.most_s, most_s)

    def moment(self, cluster_s: float) -> Moment:
        """Return the bounds of a time of the cluster that was cut to a whole second."""
        return Moment(cluster_s - self.most_s, cluster_s + RESOLUTION_S - self.least_s)

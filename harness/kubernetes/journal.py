"""The journal of a graph in a cluster: each change of a replica, with the cluster's own time and its uncertainty.

The history of a run tells when each incarnation began and ended on the run's clock. The journal, `logs/kubernetes.log`, tells why these
times are believed, and which pod and which container each incarnation was.
"""

from __future__ import annotations

import time
from pathlib import Path

from graphquake.harness.kubernetes.api.clock import ClusterClock

NAME = "kubernetes.log"


class Journal:
    """Writes the journal.

    Args:
        folder: the folder of the logs.
        clock: the clock of the cluster.
    """

    def __init__(self, folder: Path, clock: ClusterClock) -> None:
        self._path = folder / NAME
        self._clock = clock
        self._zero_s = time.monotonic()

    def at(self, cluster_s: float | None, seen_s: float) -> float:
        """Return when something happened, in `time.monotonic()` seconds.

        It is the time at which this process heard of it, if that is within the bounds that the cluster's own time gives. It is outside of
        them if the API server was away meanwhile.

        Args:
            cluster_s: the time that the cluster gives, or None if it gives none.
            seen_s: the time at which this process heard of it.
        """
        return seen_s if cluster_s is None else self._clock.moment(cluster_s).nearest(seen_s)

    def note(self, text: str, at_s: float, seen_s: float, cluster_s: float | None) -> None:
        """Write one line.

        Args:
            text: what happened.
            at_s: when it happened, as the history has it.
            seen_s: when this process heard of it.
            cluster_s: the time that the cluster gives, in seconds since the epoch, or None.
        """
        line = f"{at_s - self._zero_s:9.3f} s  {text}"
        if cluster_s is not None:
            early, late = self._clock.moment(cluster_s)
            heard_s = seen_s - self._zero_s
            line += f"  (heard at {heard_s:.3f} s; by the cluster's clock from {early - self._zero_s:.3f} s to {late - self._zero_s:.3f} s)"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

"""Sample the CPU, memory, threads and open files of each replica, and add the load that it reports. A run takes one sample a second.

The samples are for pictures, tables and the promise `no_growth`. The promise `no_leak` does not use them: see `Target.leaks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from graphquake.harness.history.events import Measured
from graphquake.harness.spec.replica import Replica


@dataclass(slots=True)
class Usage:
    """Samples the resources of replicas. The CPU use in a sample is the mean since the sample before."""

    _cpu_s: dict[int, float] = field(default_factory=dict)
    _at_s: float = math.nan

    def look(
        self,
        at_s: float,
        pids: Mapping[Replica, Iterable[int]],
        gpu_bytes: Mapping[int, int],
        said: Mapping[Replica, Mapping[str, float]],
    ) -> list[Measured]:
        """Take one sample.

        Args:
            at_s: the monotonic time of the sample, in seconds.
            pids: the processes of each live replica.
            gpu_bytes: the GPU memory of each process, in bytes, by pid.
            said: the load that replicas report in their metrics, see `load_in`.

        Returns:
            One event for each replica in `pids`.
        """
        past_s = at_s - self._at_s
        found = []
        for replica, family in pids.items():
            ran_s, rss, threads, files = 0.0, 0, 0, 0
            for pid in family:
                with suppress(psutil.Error):
                    process = psutil.Process(pid)
                    times = process.cpu_times()
                    rss += process.memory_info().rss
                    threads += process.num_threads()
                    files += process.num_fds()
                    cpu_s = times.user + times.system
                    ran_s += cpu_s - self._cpu_s.get(pid, cpu_s)
                    self._cpu_s[pid] = cpu_s
            gpu = sum(gpu_bytes.get(pid, 0) for pid in family)
            cores = ran_s / past_s if past_s > 0 else 0.0
            load = said.get(replica, {})
            found.append(
                Measured(
                    at_s, replica, round(cores, 3), rss, gpu, threads=threads, files=files, **load
                )
            )
        self._at_s = at_s
        return found

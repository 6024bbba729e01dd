"""Follow the work of each replica during a run, and record the share of each victim before its fault.

A baseline ends when it is representative: every replica that should serve has served. Some routers need seconds until they use a replica,
because they wait for health checks of their own. The wait has a limit, because some replicas are never used, e.g. a standby.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from graphquake.harness.history.events import BecameReady, Traffic, TrafficMeans
from graphquake.harness.promises.idle import is_idle
from graphquake.harness.spec.plan import Plan
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import Target, Work

# The longest baseline. HAProxy needs up to 4 s until it uses a server that it found down: two health checks, 2 s apart.
BASELINE_MAX_S: Final = 5.0
# The interval between two samples of the baseline, and between two later samples. A replica that becomes ready is sampled at once.
SAMPLE_EVERY_S: Final = 0.2
FOLLOW_EVERY_S: Final = 1.0
POLL_S: Final = 0.05
# A sample of at most this age is taken for the present one. A sample takes some 10 ms, and would delay the fault.
FRESH_S: Final = 0.1
# Fewer bytes or seconds for each replica of a role are noise: they do not show where the role gets its work from.
BYTES_MIN: Final = 64
CPU_MIN_S: Final = 0.05


class TrafficWatch:
    """Samples the work of the replicas of one run.

    Args:
        target: the graph.
        now_s: gives the time on the run's clock, in seconds.
        zero_s: the monotonic time at which the run's clock is 0, in seconds.
    """

    def __init__(self, target: Target, now_s: Callable[[], float], zero_s: float) -> None:
        self._target = target
        self._now_s = now_s
        self._zero_s = zero_s
        self._samples: list[tuple[float, Mapping[Replica, Work]]] = []
        spec = target.spec
        self._roles = spec.serves.roles | {spec.entry_role.name}

    async def sample(self) -> None:
        """Take one sample."""
        self._samples.append((self._now_s(), await self._target.work()))

    async def follow(self) -> None:
        """Take samples without end, regularly and whenever a replica dies, starts or becomes ready."""
        while True:
            known, until_s = len(self._target.log), self._now_s() + FOLLOW_EVERY_S
            while len(self._target.log) == known and self._now_s() < until_s:
                await asyncio.sleep(POLL_S)
            await self.sample()

    async def until_all_serve(self) -> list[Traffic]:
        """Wait until each replica that requests pass through has served, at most until `BASELINE_MAX_S`. Return the work of each."""
        while True:
            await self.sample()
            found = [self._traffic(one, -1) for one in self._serving()]
            if self._now_s() >= BASELINE_MAX_S or not any(map(is_idle, found)):
                return found
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def before(self, number: int, plan: Plan) -> list[Traffic]:
        """Return the work of each victim of a fault, up to now.

        A fault that is timed by an event must not wait for a sample. So its victims' work is that of the last sample.

        Args:
            number: the number of the step, from 0.
            plan: the plan. The result is empty if this step of it is not a fault.
        """
        step = plan.steps[number]
        is_timed = number > 0 and plan.steps[number - 1].plain_s > 0
        victims = [one for one in step.aims if one.role in self._roles] if step.is_fault else []
        if not victims:
            return []
        if not is_timed and self._now_s() - self._samples[-1][0] > FRESH_S:
            await self.sample()
        return [self._traffic(one, number) for one in victims]

    def _serving(self) -> Iterator[Replica]:
        return (one for one in self._target.spec.replicas() if one.role in self._roles)

    def _traffic(self, replica: Replica, number: int) -> Traffic:
        at_s, now = self._samples[-1]
        since_s, before = self._since(replica)
        peers = [
            one
            for one in now
            if one.role == replica.role and (one == replica or self._target.ready(one))
        ]
        if replica not in peers:
            return Traffic(at_s, since_s, replica, number, "none", 0.0, 0.0, len(peers))
        gained = {one: _gain(now[one], before.get(one, Work(0, 0.0))) for one in peers}
        means = _means(list(gained.values()))
        amounts = {
            one: work.received_bytes if means == "bytes" else work.cpu_s
            for one, work in gained.items()
        }
        return Traffic(
            at_s,
            since_s,
            replica,
            number,
            means,
            round(amounts[replica], 3),
            round(sum(amounts.values()), 3),
            len(peers),
        )

    def _since(self, replica: Replica) -> tuple[float, Mapping[Replica, Work]]:
        """The last sample before the replica became ready, or the first sample of the run if it was ready before the run."""
        ready_s = max(
            (
                event.at_s - self._zero_s
                for event in self._target.log
                if isinstance(event, BecameReady) and event.replica == replica
            ),
            default=0.0,
        )
        past = [one for one in self._samples if one[0] <= ready_s]
        return past[-1] if past else self._samples[0]


def _gain(now: Work, before: Work) -> Work:
    return Work(now.received_bytes - before.received_bytes, now.cpu_s - before.cpu_s)


def _means(works: Sequence[Work]) -> TrafficMeans:
    if sum(one.received_bytes for one in works) >= BYTES_MIN * max(1, len(works)):
        return "bytes"
    if sum(one.cpu_s for one in works) >= CPU_MIN_S * max(1, len(works)):
        return "cpu"
    return "none"

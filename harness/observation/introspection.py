"""Read the lists, readiness probes and metrics of a live graph, from the URLs that the graph file names."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Final

from graphquake.harness.observation.http_probe import Answer, Prober
from graphquake.harness.processes.layout import Layout
from graphquake.harness.processes.replicas import ReplicaState
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.metrics import gauges_in, load_in
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import Leak, View

SAID_MAX: Final = 160


def unlisted_text(
    spec: GraphSpec,
    within_s: float,
    lists: Sequence[View],
    read: Mapping[Replica, str] | None = None,
) -> str:
    """Return the error text about a graph in which every replica is ready, but lists are too short.

    What the lists gave follows on lines of its own, so that the first line is the same for equal causes.

    Args:
        spec: the graph.
        within_s: the time for which the harness waited for complete lists, in seconds.
        lists: the views of the kind `listing`.
        read: the URL of each list, and the text that was read there.
    """
    short = [one for one in lists if one.says < one.holds] or lists
    said = ", ".join(
        f"{one.observer} gave no list"
        if one.says < 0
        else f"{one.observer} lists {one.says} of {one.holds} replicas"
        for one in short
    )
    keys = " and ".join(dict.fromkeys(f"roles.{one.observer.role}.listed" for one in short))
    texts = "".join(
        f"\n    {one.observer}: {read[one.observer]}."
        for one in short
        if read and one.observer in read
    )
    return f"{spec.path.name}: after {within_s:g} s, {said}. Check {keys}.{texts}"


class Introspector:
    """Asks the replicas of a graph for their lists, readiness and metrics.

    Args:
        layout: the replicas and their addresses.
        prober: sends the GET requests.

    Attributes:
        read: for each replica that keeps a list, the URL of the list, the text that was read there last, and the expression that counts.
    """

    def __init__(self, layout: Layout, prober: Prober) -> None:
        self._layout = layout
        self._spec = layout.spec
        self._prober = prober
        self.read: dict[Replica, str] = {}

    def beside_paths(self) -> list[ReplicaState]:
        """Return replicas that no request passes through, e.g. a registry. While one is down, other replicas may not learn of changes."""
        path = self._spec.serves.roles | {self._spec.entry_role.name}
        return [one for one in self._layout.replicas.values() if one.role.name not in path]

    async def views(self) -> list[View]:
        """See `Target.views`."""
        if not all(one.works for one in self.beside_paths()):
            return []
        if self._where(lambda one: one.is_partly_stalled):
            return []
        asked = self._where(lambda one: one.works)
        readiness = asyncio.gather(*map(self._readiness, asked))
        return [*await self.listings(), *(one for one in await readiness if one)]

    async def listings(self) -> list[View]:
        """Return one view for each working replica that keeps a list: the number of replicas in its list, and the right number."""
        asked = self._where(lambda one: one.works and one.role.listed is not None)
        return await asyncio.gather(*map(self._listing, asked))

    async def are_listed(self) -> bool:
        """True if each list names at least as many replicas as work (see `ReplicaState.works`)."""
        return all(one.says >= one.holds for one in await self.listings())

    async def loads(self) -> dict[Replica, dict[str, float]]:
        """Return the load that each working replica reports in its metrics (see `load_in`). Replicas that do not answer are left out."""
        asked = self._where(lambda one: one.works and bool(one.role.metrics))
        return {
            one.name: load_in(answer.text, self._spec.gauges)
            for one, answer in await self._metrics(asked)
            if answer.status == HTTPStatus.OK
        }

    async def raised_gauges(self) -> list[Leak]:
        """Return a leak for each gauge of the promise `no_leak` that is above 0, and for each ready replica whose metrics can't be read."""
        found = []
        gauges = self._spec.promises.gauges
        asked = self._where(lambda one: one.is_ready and bool(one.role.metrics and gauges))
        for replica, answer in await self._metrics(asked):
            if answer.status != HTTPStatus.OK:
                said = answer.text[:SAID_MAX]
                found.append(Leak("gauge", f"{replica.name} gave no metrics: {said}"))
            found += [
                Leak("gauge", f"{replica.name}: {name} is {value:g}")
                for name, value in gauges_in(answer.text, gauges).items()
                if value > 0
            ]
        return found

    def _where(self, holds: Callable[[ReplicaState], bool]) -> list[ReplicaState]:
        return [one for one in self._layout.replicas.values() if holds(one)]

    async def _metrics(self, asked: Iterable[ReplicaState]) -> list[tuple[ReplicaState, Answer]]:
        asked = list(asked)
        urls = (self._layout.fill(one, one.role.metrics) for one in asked)
        return list(zip(asked, await asyncio.gather(*map(self._prober.get, urls)), strict=True))

    async def _listing(self, replica: ReplicaState) -> View:
        listed = replica.role.listed
        assert listed is not None
        url = self._layout.fill(replica, listed.get)
        answer = await self._prober.get(url)
        self.read[replica.name] = (
            f"{url} gave {answer.text[:SAID_MAX]!r}, and item is {listed.item!r}"
        )
        count = len(re.findall(listed.item, answer.text)) if answer.status else -1
        holds = sum(one.works for role in listed.roles for one in self._layout.of_role(role))
        return View(replica.name, "listing", count, holds)

    async def _readiness(self, replica: ReplicaState) -> View | None:
        probe = replica.role.ready
        if probe is None:
            return None
        answer = await self._prober.get(self._layout.fill(replica, probe.get))
        says = answer.status == HTTPStatus.OK and re.search(probe.body, answer.text) is not None
        # A replica of the entry role should be ready only while there is a path. Every other working replica should always be ready.
        holds = not replica.role.entry or self._spec.serves.holds_by(
            lambda role: any(one.works for one in self._layout.of_role(role))
        )
        return View(replica.name, "readiness", int(says), int(holds))

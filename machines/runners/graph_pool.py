"""The open graphs of a runner that no run has at the moment. They wait for the next run that may use them.

A graph that starts slowly is left open after a run, one for each slot at most. The next run that may take a used graph takes one. A run
that needs a fresh graph leaves the waiting graphs as they are, unless the machine has no room for one more. Then the graph that has waited
for the longest time ends first. So a fresh graph never lacks GPUs that only a waiting graph holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from graphquake.harness.run.reuse import USES_MAX, ReusableGraph


@dataclass(slots=True)
class GraphPool:
    """The waiting graphs of one runner, and the number of graphs that its runs have.

    Attributes:
        slots: the number of runs that go on side by side.
        open_max: the most graphs that may be open at once, with those of the runs. At least `slots`.
        is_closed: true from the end of the runner on. Then no graph is left open.
    """

    slots: int
    open_max: int
    is_closed: bool = False
    _waiting: list[ReusableGraph] = field(default_factory=list)
    _lent: int = 0
    # The number of the lent graphs that come back.
    _promised: int = 0

    def fit(self, slots: int, graphs: int) -> None:
        """Set the number of slots, and let up to `graphs` graphs be open at once. Each slot needs one, and may leave another one."""
        self.slots = slots
        self.open_max = max(slots, min(graphs, 2 * slots))

    async def take(self, *, may_reuse: bool) -> ReusableGraph | None:
        """Return a used graph for a run, or None if the run has to open a fresh one. There is room for that graph then.

        Each call that returns is followed by one call of `give_back`.
        """
        self._lent += 1
        if may_reuse and self._waiting:
            return self._waiting.pop()
        try:
            while self._waiting and self._lent + len(self._waiting) > self.open_max:
                await self._waiting.pop(0).close()
        except BaseException:
            self._lent -= 1
            raise
        return None

    def promise(self, graph: ReusableGraph | None) -> bool:
        """Tell a run whether to leave its graph open, and remember that it comes back.

        Args:
            graph: the used graph of the run, or None if the run opens a fresh one.
        """
        has_place = len(self._waiting) + self._promised < self.slots
        has_uses = graph is None or graph.uses + 1 < USES_MAX
        keeps = has_place and has_uses and not self.is_closed
        self._promised += keeps
        return keeps

    async def give_back(self, graph: ReusableGraph | None, *, promised: bool) -> None:
        """Note that a run is over, and keep its graph if it is worth that.

        Args:
            graph: the graph of the run if it was left open, otherwise None.
            promised: the answer of `promise` for this run.
        """
        self._lent -= 1
        self._promised -= promised
        if graph is None:
            return
        if self.is_closed or not graph.is_worth_healing():
            await graph.close()
        else:
            self._waiting.append(graph)

    async def close(self) -> None:
        """End all waiting graphs. Graphs that come back later end, too."""
        self.is_closed = True
        while self._waiting:
            await self._waiting.pop().close()

"""The interface of a cluster for `RayRunner`: slots on its nodes. `cluster` offers them with Ray, and tests offer simulated ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from graphquake.harness.errors import InputError
from graphquake.harness.history.host import Host
from graphquake.harness.run.status import RunStatus
from graphquake.machines.runners.runner import RunOrder, RunResult


class SlotLost(Exception):
    """A slot is gone: its process, its node, or the connection to it. The text is the reason."""


class NoPlace(InputError):
    """No node of the cluster has room for another slot."""


@dataclass(frozen=True, slots=True)
class Order:
    """A run that a slot is to make.

    Attributes:
        run: the run.
        left_s, left_runs: the rest of the budget, for repeats of a disturbed run.
    """

    run: RunOrder
    left_s: float
    left_runs: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A run that ended with an error that is reported in one line.

    Attributes:
        of_graph: true if it is a `GraphError`, false if it is an `InputError`.
        text: the line.
        folder: the folder of the run on the node, by which the line may call it.
    """

    of_graph: bool
    text: str
    folder: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """A run that has ended on a node.

    Attributes:
        result: the result. The paths in it are those of the node.
        files: the folder of the run, packed (see `parcels`).
    """

    result: RunResult | Failed
    files: bytes


class Slot(Protocol):
    """A process on a node that makes one run at a time.

    Attributes:
        host: the node, its hardware, and the versions of the graph's software there.
    """

    host: Host

    async def run(self, order: Order) -> Delivery | None:
        """Make a run. None if `stop` ended it.

        Raises:
            SlotLost: if the slot is gone.
        """
        ...

    async def heartbeat(self) -> RunStatus | None:
        """Tell the slot that it is still needed. Without that, it ends itself and its graph (see `node`).

        Returns:
            The latest state of the run in progress.

        Raises:
            SlotLost: if the slot is gone.
        """
        ...

    async def stop(self) -> None:
        """End the run in progress."""
        ...

    async def leave(self) -> None:
        """End the slot and all that it has started."""
        ...


class Places(Protocol):
    """The nodes of a cluster."""

    async def open(self) -> Slot:
        """Open a slot on a node that has room for it.

        Raises:
            NoPlace: if there is none.
            SlotLost: if the slot is lost while it opens.
            InputError: if the graph can't run there.
        """
        ...

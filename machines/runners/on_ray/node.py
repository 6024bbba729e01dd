"""A slot on a node: the process that makes whole runs there, with the code of local runs. It imports nothing of Ray.

The process owns its graphs through the guard, as a search on one machine does. If the process dies, the guard ends the graph. If no
heartbeat comes for `LEASE_S`, the driver is gone or can't be reached. Then the process ends itself at once, so that no graph lives on.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import psutil

from graphquake.harness.errors import GraphError, GraphquakeError, InputError
from graphquake.harness.history.host import Host
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.run.status import RunStatus
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.harness.spec.templates.environment import check_environment
from graphquake.machines.runners.budget import Budget
from graphquake.machines.runners.live_runner import LiveRunner
from graphquake.machines.runners.on_ray.parcels import pack, unpack
from graphquake.machines.runners.on_ray.places import Delivery, Failed, Order
from graphquake.machines.runners.runner import PendingRun, RunResult

# Without a heartbeat for this long, a slot ends. It is shorter than the time after which the driver runs the plan elsewhere.
LEASE_S: Final = 4.0
_LOOK_S: Final = 0.2
# The folder of a slot is named for its process, so that a later slot can tell whether that process has ended.
_PREFIX: Final = "graphquake-slot-"


class NodeSlot:
    """Makes the runs of one slot, one at a time.

    Args:
        spec: the graph, as the driver read it.
        files: the folder of the graph file, packed.
        python: the path of the driver's Python. If the graph uses it, this node's own Python takes its place.
    """

    def __init__(self, spec: GraphSpec, files: bytes, python: str) -> None:
        _remove_left()
        self._home = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        here = self._home / "graph"
        unpack(files, here)
        spec = replace(spec, path=here / spec.path.name, python=_own_python(spec.python, python))
        self._spec = spec
        self._runner: LiveRunner | None = None
        self._pending: PendingRun | None = None
        self._status: RunStatus | None = None
        # The first heartbeat starts the clock of the lease.
        self._heartbeat_s: float | None = None

    async def open(self, node: str) -> Host:
        """Check that the graph can run here, and return the facts about this node.

        Args:
            node: the name of the node.

        Raises:
            InputError: if an environment variable is missing, or a fault that the driver draws is not possible here.
        """
        wanted = _drawn(self._spec)
        check_environment(self._spec)
        here = on_this_machine(self._spec)
        self._spec = replace(here, lacks={**here.lacks, **self._spec.lacks})
        if missing := sorted(wanted - _drawn(here)):
            why = "; ".join(f"{kind} ({here.lacks[kind]})" for kind in missing)
            raise InputError(
                f"{self._spec.path.name}: node {node} can't do faults that the search draws: {why}. Leave them out with the key faults"
            )
        threading.Thread(target=self._end_without_heartbeat, daemon=True).start()
        return await asyncio.to_thread(self._enter, node)

    def _enter(self, node: str) -> Host:
        runner = LiveRunner(
            self._spec,
            self._home / "runs",
            Budget(0.0),
            watch=self._watch,
            # Other slots of this node share its cores, so a graph that is opened ahead would disturb their runs.
            ahead=False,
        )
        self._runner = runner.__enter__()
        self._runner.host = replace(runner.host, node=node)
        return self._runner.host

    def _watch(self, plan: Plan, why: str, status: RunStatus) -> None:
        del plan, why
        self._status = status

    async def run(self, order: Order) -> Delivery | None:
        """Make a run, and return it with its folder. None if `stop` ended it."""
        runner = self._runner
        assert runner is not None
        # The driver has counted this run already.
        runner.budget = Budget(max(1.0, order.left_s), order.left_runs + 1)
        run = order.run
        # The driver's paths are not those of this node, so only the bounds and the load are taken over.
        spec = run.spec and self._spec.under(run.spec)
        pending = runner.start(
            run.plan, run.why, enough=run.enough, may_reuse=run.may_reuse, patient=run.patient, spec=spec
        )  # fmt: skip
        self._pending = pending
        folder = pending.folder
        assert folder is not None
        result: RunResult | Failed
        try:
            result = await asyncio.wrap_future(pending.done)
            if not result.used:
                runner.starts_s.append(result.start_s)
        except asyncio.CancelledError:
            return None
        except GraphquakeError as error:
            result = Failed(isinstance(error, GraphError), str(error), str(folder))
        finally:
            self._pending, self._status = None, None
        try:
            return Delivery(result, await asyncio.to_thread(pack, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def heartbeat(self) -> RunStatus | None:
        """Note that the driver still needs this slot. Return the latest state of the run in progress."""
        self._heartbeat_s = time.monotonic()
        return self._status

    async def stop(self) -> None:
        """End the run in progress. The next run begins when its graph has ended."""
        if self._pending is not None and self._runner is not None:
            self._runner.cancel(self._pending)

    async def leave(self) -> None:
        """End the graphs, and remove all files of this slot."""
        if self._runner is not None:
            await asyncio.to_thread(self._runner.__exit__, None, None, None)
        shutil.rmtree(self._home, ignore_errors=True)

    def _end_without_heartbeat(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            if self._heartbeat_s is not None and time.monotonic() - self._heartbeat_s > LEASE_S:
                # The guard sees the end of this process, and ends the graph.
                os._exit(1)


def _own_python(python: str, of_driver: str) -> str:
    """The Python of a graph on this node."""
    return sys.executable if python == of_driver else python


def _drawn(spec: GraphSpec) -> set[str]:
    """The kinds of faults that a search draws for a graph."""
    return {kind for role in spec.roles for kind in spec.faults_at(role.name)}


def _remove_left() -> None:
    """Remove the folders of slots whose processes were killed."""
    for one in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = one.name.removeprefix(_PREFIX).partition("-")[0]
        with suppress(OSError, ValueError):
            if not psutil.pid_exists(int(pid)):
                shutil.rmtree(one, ignore_errors=True)

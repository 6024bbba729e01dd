"""Send the signals and run the commands of the user's own steps."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from graphquake.harness.errors import GraphError
from graphquake.harness.history.events import exit_text
from graphquake.harness.observation.introspection import SAID_MAX
from graphquake.harness.processes.guard_client import Guard
from graphquake.harness.processes.layout import Layout
from graphquake.harness.processes.process_tree import ProcessTree
from graphquake.harness.processes.procfs import (
    OWNER,
    REPLICA,
    kill_all,
)
from graphquake.harness.processes.signals import KILL_WITHIN_S, not_landed
from graphquake.harness.spec.replica import Replica
from graphquake.harness.targets.target import Landed


class Spaces(Protocol):
    """Tells the paths of the namespaces from which each replica of a graph can be reached."""

    @property
    def own(self) -> Sequence[str]:
        """The paths. Empty if these are the namespaces of the harness."""
        ...


class OwnCommands:
    """Sends the signals and runs the commands of the user's own steps. `OwnActions` describes what each method does.

    The guard is the parent of each command. So a command ends with the graph, however the harness ends. If the harness dies between `do`
    and `undo`, the guard runs `undo`.

    Args:
        layout: the replicas of the graph.
        guard: starts the commands.
        tree: finds the processes of a command.
        owner: the mark of the graph's processes.
        spaces: tells the namespaces in which the commands run.
    """

    def __init__(
        self, layout: Layout, guard: Guard, tree: ProcessTree, owner: str, spaces: Spaces
    ) -> None:
        self._spaces = spaces
        self._layout = layout
        self._guard = guard
        self._tree = tree
        self._owner = owner

    async def signal(self, replica: Replica, name: str, *, is_fault: bool) -> Landed:
        """Send a signal to the main process of a replica. Do not wait for its effect."""
        running = self._layout.replicas[replica].running
        if running is None:
            return not_landed(f"{replica} was dead already")
        running.aimed |= is_fault
        sent_s = time.monotonic()
        running.child.send_signal(signal.Signals[name])
        return Landed(ok=True, proof=f"{name} sent to pid {running.child.pid}", at_s=sent_s)

    async def command(self, key: str, part: str, aim: Replica | None) -> Landed:
        """Run a command, and wait for its end. The end of its output is the proof."""
        step = self._layout.spec.own_steps[key.rsplit(maxsplit=1)[-1]]
        mark, folder = f"{key}.{part}", str(self._layout.run_dir)
        argv, env, log = self._order(key, part, aim)
        log.unlink(missing_ok=True)
        try:
            if part == "do" and step.undo:
                undo, undo_env, undo_log = self._order(key, "undo", aim)
                self._guard.add_cleanup(key, undo, undo_env, folder, str(undo_log), step.within_s)
            status = await self._guard.run(
                mark, argv, env | {OWNER: self._owner, REPLICA: mark}, folder, str(log), step.within_s,
                lambda pid: self._tree.add(pid, mark), self._spaces.own,
            )  # fmt: skip
            if part == "undo":
                self._guard.drop_cleanup(key)
        except GraphError as error:
            return not_landed(f"{part}: {error}")
        if status is None:
            await self._end(mark)
            return not_landed(f"{part} did not end within {step.within_s:g} s, and was killed")
        text = log.read_text(encoding="utf-8", errors="replace")
        said = " ".join(text.split())[-SAID_MAX:]
        proof = f"{part}: {exit_text(status)}" + (f": {said}" if said else "")
        return Landed(ok=status == 0, proof=proof, at_s=time.monotonic())

    def _order(
        self, key: str, part: str, aim: Replica | None
    ) -> tuple[list[str], dict[str, str], Path]:
        """The command line, the environment and the log of a command."""
        spec, mark = self._layout.spec, f"{key}.{part}"
        replica = self._layout.replicas[aim or Replica(spec.entry_role.name, 0)]
        command = spec.own_steps[key.rsplit(maxsplit=1)[-1]].commands()[part]
        return (
            self._layout.own_command(replica, command),
            self._layout.environment(replica),
            self._layout.run_dir / "logs" / f"{mark.replace(' ', '-')}.log",
        )

    async def end_commands(self, key: str) -> None:
        """Kill every process that the commands of a step have left."""
        await self._end(key)

    async def _end(self, mark: str) -> None:
        def left() -> set[int]:
            keys = self._tree.keys().items()
            return {pid for pid, key in keys if key == mark or key.startswith(f"{mark}.")}

        await kill_all(left, KILL_WITHIN_S)

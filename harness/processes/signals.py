"""Send signals to the processes of one replica, and prove that each took effect. Run the commands of the user's own steps.

A proof comes from the kernel, never from the behaviour of the graph.
"""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Final

from graphquake.harness.errors import GraphError
from graphquake.harness.history.events import exit_text
from graphquake.harness.observation.http_probe import POLL_S
from graphquake.harness.observation.introspection import SAID_MAX
from graphquake.harness.processes.guard import stat_of
from graphquake.harness.processes.guard_client import Guard
from graphquake.harness.processes.layout import Layout
from graphquake.harness.processes.process_tree import ProcessTree
from graphquake.harness.processes.procfs import (
    OWNER,
    REPLICA,
    command_of,
    is_called,
    is_stopped,
    kill_all,
    runs,
    signal_and_see,
    signal_until,
)
from graphquake.harness.processes.replicas import Incarnation, ReplicaState
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.scope import TREE, Child, Scope
from graphquake.harness.targets.target import Landed

# The time limit for the child that a step aims at to appear. A replica that was just started may not have it yet.
CHILD_WITHIN_S: Final = 1.0
# The time limit from SIGKILL to the end of a process. A process that frees many GiB, or a GPU, needs some seconds to end.
KILL_WITHIN_S: Final = 5.0
# The time limit for processes to stop or to continue. A process stops at once, unless it is in a system call. On a busy host this takes
# some milliseconds.
SWITCH_WITHIN_S: Final = 2.0


class FaultInjector:
    """Sends the signals that steps ask for. `Actions` describes what each method does.

    Args:
        tree: finds the processes of a replica.
    """

    def __init__(self, tree: ProcessTree) -> None:
        self._tree = tree

    def own(self, layout: Layout, guard: Guard, owner: str) -> OwnCommands:
        """Return what the user's own steps can do to the same graph (see `OwnCommands`)."""
        return OwnCommands(layout, guard, self._tree, owner)

    async def kill(self, replica: ReplicaState, scope: Scope) -> Landed:
        """Send SIGKILL to all processes of a replica, to its main process, or to a child, and wait until they are gone."""
        running = replica.running
        if running is None:
            return not_landed(f"{replica.name} was dead already")
        if isinstance(scope, Child):
            return await self._kill_child(replica, running, scope)
        begun_s = time.monotonic()
        running.aimed = True
        # A process that has overwritten its marks is known only while its parents live. So all are looked up before the first one dies.
        others = {
            pid: stat.start
            for pid in self._tree.of(running)
            if pid != running.child.pid and (stat := stat_of(pid))
        }
        running.child.send_signal(signal.SIGKILL)
        ended_s = begun_s
        pids = f"pid {running.child.pid}"
        if scope == TREE:

            def left() -> set[int]:
                known = {
                    pid
                    for pid, start in others.items()
                    if (stat := stat_of(pid)) and stat.start == start
                }
                return known.union(self._tree.of(running)) - {running.child.pid}

            more, all_gone = await kill_all(left, KILL_WITHIN_S)
            if not all_gone:
                return not_landed(
                    f"SIGKILL did not end all of {replica.name} within {KILL_WITHIN_S:g} s"
                )
            if more:
                pids += f" and {more} more"
                ended_s = time.monotonic()
        if not await seen(running.ended, KILL_WITHIN_S):
            return not_landed(f"SIGKILL did not end {pids} within {KILL_WITHIN_S:g} s")
        ended_s = max(ended_s, running.ended_s)
        return Landed(ok=True, proof=_gone_after(pids, ended_s - begun_s), at_s=ended_s)

    async def _kill_child(
        self, replica: ReplicaState, running: Incarnation, child: Child
    ) -> Landed:
        name = replica.role.children[child.name]
        until_s = time.monotonic() + CHILD_WITHIN_S
        while True:
            family = [pid for pid in self._tree.of(running) if pid != running.child.pid]
            found = [
                (stat.start, pid)
                for pid in family
                if is_called(pid, name) and (stat := stat_of(pid))
            ]
            if child.index < len(found) or not running.runs or time.monotonic() >= until_s:
                break
            await asyncio.sleep(POLL_S)
        if child.index >= len(found):
            there = ", ".join(sorted({command_of(pid)[:40] for pid in family})) or "none"
            return not_landed(
                f"{replica.name} has {len(found)} child processes called {name}; its children: {there}"
            )
        _, pid = sorted(found)[child.index]
        begun_s = time.monotonic()
        running.terminating |= child.name in replica.role.dies_with
        gone = await signal_and_see(
            pid, signal.SIGKILL, lambda: pid in self._tree.of(running), KILL_WITHIN_S
        )
        ended_s = time.monotonic()
        if not gone:
            return not_landed(f"SIGKILL did not end pid {pid} ({name}) within {KILL_WITHIN_S:g} s")
        proof = _gone_after(f"pid {pid} ({name})", ended_s - begun_s)
        return Landed(ok=True, proof=proof, at_s=ended_s)

    def terminate(self, replica: ReplicaState) -> Landed:
        """Send SIGTERM to the main process of a replica. Do not wait for the end of the process."""
        running = replica.running
        if running is None:
            return not_landed(f"{replica.name} was dead already")
        running.aimed = running.terminating = True
        sent_s = time.monotonic()
        running.child.send_signal(signal.SIGTERM)
        return Landed(ok=True, proof=f"SIGTERM sent to pid {running.child.pid}", at_s=sent_s)

    async def stall(self, replica: ReplicaState) -> Landed:
        """Send SIGSTOP to all processes of a replica, and wait until they are stopped."""
        running = replica.running
        if running is None:
            return not_landed(f"{replica.name} was dead already")
        running.stalled = True
        return await self._switch(running, signal.SIGSTOP)

    async def resume(self, replica: ReplicaState) -> Landed:
        """Send SIGCONT to all processes of a replica, and wait until none is stopped. A replica that died meanwhile counts as resumed."""
        running = replica.running
        if running is None or not running.stalled:
            return Landed(ok=True, proof="it had died", at_s=time.monotonic())
        landed = await self._switch(running, signal.SIGCONT)
        running.stalled = not landed.ok
        return landed

    async def _switch(self, running: Incarnation, number: signal.Signals) -> Landed:
        """Send SIGSTOP or SIGCONT to all processes of an incarnation, and wait until all are stopped, or none is."""
        begun_s = time.monotonic()
        is_stop = number == signal.SIGSTOP
        count, done = await signal_until(
            lambda: self._tree.of(running),
            number,
            lambda pid: runs(pid) and is_stopped(pid) != is_stop,
            SWITCH_WITHIN_S,
        )
        at_s = time.monotonic()
        took = f"{(at_s - begun_s) * 1e3:.1f} ms after {number.name}"
        state = "stopped (state T)" if is_stop else "no longer stopped"
        if not done:
            return not_landed(f"not all processes of {running.key} {state} {took}")
        return Landed(ok=True, proof=f"{count} processes {state} {took}", at_s=at_s)


class OwnCommands:
    """Sends the signals and runs the commands of the user's own steps. `OwnActions` describes what each method does.

    The guard is the parent of each command. So a command ends with the graph, however the harness ends.

    Args:
        layout: the replicas of the graph.
        guard: starts the commands.
        tree: finds the processes of a command.
        owner: the mark of the graph's processes.
    """

    def __init__(self, layout: Layout, guard: Guard, tree: ProcessTree, owner: str) -> None:
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
        spec, name = self._layout.spec, key.rsplit(maxsplit=1)[-1]
        step = spec.own_steps[name]
        replica = self._layout.replicas[aim or Replica(spec.entry_role.name, 0)]
        mark = f"{key}.{part}"
        log = self._layout.run_dir / "logs" / f"{mark.replace(' ', '-')}.log"
        log.unlink(missing_ok=True)
        try:
            env = self._layout.environment(replica) | {OWNER: self._owner, REPLICA: mark}
            status = await self._guard.run(
                mark,
                self._layout.own_command(replica, step.commands()[part]),
                env,
                str(self._layout.run_dir),
                str(log),
                step.within_s,
                lambda pid: self._tree.add(pid, mark),
            )
        except GraphError as error:
            return not_landed(f"{part}: {error}")
        if status is None:
            await self._end(mark)
            return not_landed(f"{part} did not end within {step.within_s:g} s, and was killed")
        said = " ".join(log.read_text(encoding="utf-8", errors="replace").split())[-SAID_MAX:]
        proof = f"{part}: {exit_text(status)}" + (f": {said}" if said else "")
        return Landed(ok=status == 0, proof=proof, at_s=time.monotonic())

    async def end_commands(self, key: str) -> None:
        """Kill every process that the commands of a step have left."""
        await self._end(key)

    async def _end(self, mark: str) -> None:
        def left() -> set[int]:
            keys = self._tree.keys().items()
            return {pid for pid, key in keys if key == mark or key.startswith(f"{mark}.")}

        await kill_all(left, KILL_WITHIN_S)


async def seen(event: asyncio.Event, within_s: float) -> bool:
    """Wait for an event. False if it did not happen within `within_s` seconds."""
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


def not_landed(proof: str) -> Landed:
    """Return the result of an action that did not take effect. `proof` says why."""
    return Landed(ok=False, proof=proof, at_s=time.monotonic())


def _gone_after(what: str, took_s: float) -> str:
    return f"{what} gone {max(0.0, took_s) * 1e3:.1f} ms after SIGKILL"

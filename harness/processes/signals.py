"""Send signals to the processes of one replica, and prove that each took effect.

A proof comes from the kernel, never from the behaviour of the graph.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Mapping
from typing import Final

from graphquake.harness.observation.http_probe import POLL_S
from graphquake.harness.processes.guard import stat_of
from graphquake.harness.processes.process_tree import ProcessTree
from graphquake.harness.processes.procfs import (
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
        replicas: the state of each replica.
    """

    def __init__(self, tree: ProcessTree, replicas: Mapping[Replica, ReplicaState]) -> None:
        self._tree = tree
        self._replicas = replicas

    async def kill(self, name: Replica, scope: Scope) -> Landed:
        """Send SIGKILL to all processes of a replica, to its main process, or to a child, and wait until they are gone."""
        replica = self._replicas[name]
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

    async def _find_child(
        self, replica: ReplicaState, running: Incarnation, child: Child
    ) -> int | Landed:
        """Return the pid of a child, or the result of a fault that does not find it."""
        name = replica.role.children[child.name]
        until_s = time.monotonic() + CHILD_WITHIN_S
        while True:
            family = [pid for pid in self._tree.of(running) if pid != running.child.pid]
            found = [
                (stat.start, pid)
                for pid in family
                if is_called(pid, name) and (stat := stat_of(pid))
            ]
            if child.index < len(found):
                return sorted(found)[child.index][1]
            if not running.runs or time.monotonic() >= until_s:
                break
            await asyncio.sleep(POLL_S)
        there = ", ".join(sorted({command_of(pid)[:40] for pid in family})) or "none"
        return not_landed(
            f"{replica.name} has {len(found)} child processes called {name}; its children: {there}"
        )

    async def _kill_child(
        self, replica: ReplicaState, running: Incarnation, child: Child
    ) -> Landed:
        pid = await self._find_child(replica, running, child)
        if isinstance(pid, Landed):
            return pid
        name = replica.role.children[child.name]
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

    async def terminate(self, name: Replica) -> Landed:
        """Send SIGTERM to the main process of a replica."""
        return self._end(self._replicas[name], signal.SIGTERM)

    async def interrupt(self, name: Replica) -> Landed:
        """Send SIGINT to the main process of a replica."""
        return self._end(self._replicas[name], signal.SIGINT)

    def _end(self, replica: ReplicaState, number: signal.Signals) -> Landed:
        """Send SIGTERM or SIGINT to the main process of a replica. Do not wait for the end of the process."""
        running = replica.running
        if running is None:
            return not_landed(f"{replica.name} was dead already")
        running.aimed = running.terminating = True
        sent_s = time.monotonic()
        running.child.send_signal(number)
        return Landed(ok=True, proof=f"{number.name} sent to pid {running.child.pid}", at_s=sent_s)

    async def stall(self, name: Replica, scope: Scope) -> Landed:
        """Send SIGSTOP to the processes in the scope, and wait until they are stopped. Every other process of the replica must run on."""
        replica = self._replicas[name]
        running = replica.running
        if running is None:
            return not_landed(f"{replica.name} was dead already")
        if scope == TREE:
            running.stalled = True
            return await self._switch(running, signal.SIGSTOP)
        called = "the main process"
        found: int | Landed = running.child.pid
        if isinstance(scope, Child):
            called = replica.role.children[scope.name]
            found = await self._find_child(replica, running, scope)
        if isinstance(found, Landed):
            return found
        pid: int = found
        running.stalled = running.partly = True
        landed = await self._switch(running, signal.SIGSTOP, pid)
        if not landed.ok:
            return landed
        others = [one for one in self._tree.of(running) if one != pid]
        if stopped := [one for one in others if is_stopped(one)]:
            return not_landed(f"pid {stopped[0]} of {replica.name} is stopped, too")
        rest = f"{len(others)} other processes of {replica.name} run"
        proof = f"pid {pid} ({called}): {landed.proof}; {rest}"
        return Landed(ok=True, proof=proof, at_s=landed.at_s)

    async def resume(self, name: Replica) -> Landed:
        """Send SIGCONT to all processes of a replica, and wait until none is stopped. A replica that died meanwhile counts as resumed."""
        running = self._replicas[name].running
        if running is None or not running.stalled:
            return Landed(ok=True, proof="it had died", at_s=time.monotonic())
        landed = await self._switch(running, signal.SIGCONT)
        running.stalled = not landed.ok
        running.partly &= running.stalled
        return landed

    async def _switch(self, running: Incarnation, number: signal.Signals, one: int = 0) -> Landed:
        """Send SIGSTOP or SIGCONT to all processes of an incarnation, or to one, and wait until all are stopped, or none is."""
        begun_s = time.monotonic()
        is_stop = number == signal.SIGSTOP
        count, done = await signal_until(
            lambda: [pid for pid in self._tree.of(running) if one in (0, pid)],
            number,
            lambda pid: runs(pid) and is_stopped(pid) != is_stop,
            SWITCH_WITHIN_S,
        )
        at_s = time.monotonic()
        took = f"{(at_s - begun_s) * 1e3:.1f} ms after {number.name}"
        state = "stopped (state T)" if is_stop else "no longer stopped"
        if not done or not count:
            return not_landed(f"not all processes of {running.key} {state} {took}")
        counted = "1 process" if count == 1 else f"{count} processes"
        return Landed(ok=True, proof=f"{counted} {state} {took}", at_s=at_s)


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

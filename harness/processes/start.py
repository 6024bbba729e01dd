"""The start of a graph: the order of its roles, and the error text about a replica that does not become ready."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from graphquake.harness.errors import GraphError, single_error
from graphquake.harness.observation.http_probe import POLL_S, Answer, Prober
from graphquake.harness.observation.introspection import SAID_MAX
from graphquake.harness.processes.replicas import ReplicaState
from graphquake.harness.processes.resources.ports import ports_of
from graphquake.harness.processes.signals import KILL_WITHIN_S
from graphquake.harness.spec.roles.role import RoleSpec

LOG_LINES: Final = 5
# The error texts of servers whose port another process has. The first comes from the C library, the second from Node.js.
_PORT_TAKEN: Final = re.compile("address already in use|EADDRINUSE", re.IGNORECASE)
# The error texts of Python and of the kernel about a module or a program that is not installed.
_PROGRAM_MISSING: Final = re.compile("No module named|No such file or directory")


async def start_in_order(
    roles: Iterable[RoleSpec], start: Callable[[RoleSpec], Awaitable[None]]
) -> None:
    """Start each role as soon as all roles that it needs are ready. Roles that need nothing start at once.

    Args:
        roles: all roles of a graph.
        start: starts all replicas of a role, and returns when they are ready.

    Raises:
        GraphError: the first one that `start` raised. No other role is started after it. If the role's program is missing, the error says
            how to install it.
    """
    roles = list(roles)
    ready = {role.name: asyncio.Event() for role in roles}

    async def start_one(role: RoleSpec) -> None:
        for name in role.needs:
            await ready[name].wait()
        try:
            await start(role)
        except GraphError as error:
            if role.install and _PROGRAM_MISSING.search(str(error)):
                raise GraphError(f"{error}\n  To install it: {role.install}") from None
            raise
        ready[role.name].set()

    with single_error():
        async with asyncio.TaskGroup() as tasks:
            for role in roles:
                tasks.create_task(start_one(role))


async def until_answered(
    prober: Prober,
    url: str,
    body: str,
    own: Collection[int],
    processes: Callable[[], Sequence[int]],
) -> None:
    """Wait until a replica's readiness probe passes.

    Args:
        prober: sends the probe.
        url: the URL of the probe.
        body: the expression that the answer must match.
        own: the ports of the replica. If the URL has one of them, a process of the replica must listen on it. Otherwise another process
            answers there, e.g. a child that outlived an earlier incarnation.
        processes: returns the present processes of the replica.
    """
    await prober.until(url, body)
    port = urlsplit(url).port
    while port in own and port not in ports_of(processes()):
        await asyncio.sleep(POLL_S)
        await prober.until(url, body)


async def not_ready(replica: ReplicaState, restart: str, url: str, prober: Prober) -> str:
    """Wait until a replica that was just started is ready. Return an empty text, or the reason why it is not.

    Args:
        replica: the replica.
        restart: `never` if the graph fails with a replica that dies before it is ready.
        url: the URL of its readiness probe.
        prober: asks this URL once more when the time is over.
    """
    probe = replica.role.ready
    within_s = probe.within_s if probe else KILL_WITHIN_S

    def settled() -> bool:
        assert replica.now is not None
        return replica.now.ready.is_set() or (not replica.now.runs and restart == "never")

    in_time = await until(settled, within_s)
    assert replica.now is not None
    if replica.now.ready.is_set():
        return ""
    if in_time:
        return f"{replica.now.how_it_ended} before it was ready"
    return not_ready_text(within_s, url, await prober.get(url))


async def until(holds: Callable[[], bool], within_s: float) -> bool:
    """Wait until a condition holds. False if it still does not hold after `within_s` seconds."""
    until_s = time.monotonic() + within_s
    while not holds():
        if time.monotonic() >= until_s:
            return False
        await asyncio.sleep(POLL_S)
    return True


def not_ready_text(within_s: float, url: str, answer: Answer) -> str:
    """Say that a replica was not ready in time, and what its readiness probe answered."""
    said = " ".join(answer.text.split())[:SAID_MAX]
    # The text of an error often begins with its status, such as "404: Not Found".
    said = said.removeprefix(str(answer.status)).lstrip(" :")
    status = [f"HTTP {answer.status}"] if answer.status else []
    parts = ": ".join([*status, *([said] if said else [])])
    return f"not ready within {within_s:g} s: GET {url}: {parts}"


def port_taken_text(role: RoleSpec, log: Path) -> str:
    """Say that the first process of a replica ended because its port was taken. Empty if the end of its log does not say so."""
    end = last_lines([log])
    if not _PORT_TAKEN.search(end):
        return ""
    several = role.replicas > 1 and "{port." not in role.command
    hint = (
        f": the command has no {{port.NAME}}, so all {role.replicas} replicas use one port"
        if several
        else ""
    )
    return f"ended because its port is taken{hint}{end}"


def last_lines(logs: Iterable[Path]) -> str:
    """Return the last lines of the first of these logs that is not empty, as a part of an error text."""
    for log in logs:
        with suppress(OSError):
            lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
            last = [line.rstrip()[:SAID_MAX] for line in lines if line.strip()][-LOG_LINES:]
            if last:
                return "; the end of its log:" + "".join(f"\n    {line}" for line in last)
    return "; its log is empty"

"""The common part of all processes of the reference graph: a port, an entry in the registry, probes, and a graceful shutdown.

After SIGTERM a process leaves the registry, refuses new calls, finishes running ones (within `DRAIN_MAX_S`), and exits with status 0. If
it loses something that it needs, e.g. a rank of its engine, it exits at once with status 1. Waiting callers then see their connections
close, and the process may be started again.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import sys
from collections.abc import Sequence
from typing import ClassVar, Final

from graphquake.harness.reference.membership import Directory, Instance, Member
from graphquake.harness.reference.wire import Call, Message, Server

DRAIN_MAX_S: Final = 5.0
DRAIN_POLL_S: Final = 0.01


class Lost(Exception):
    """The process cannot continue. The text gives the reason."""


class Node:
    """One process.

    Args:
        arguments: the command line, as `options` describes it.

    Attributes:
        role: the role that it is listed under.
        draining: true after SIGTERM.
        in_flight: the requests that it works on.
    """

    role: ClassVar[str]

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.port: int = arguments.port
        self.directory = Directory(arguments.registries)
        self.draining = False
        self.in_flight = 0
        self.instance = Instance(
            secrets.token_hex(8), self.listed_as(arguments), arguments.name, arguments.port
        )
        self._member = Member(self.instance, arguments.registries)

    @classmethod
    def listed_as(cls, arguments: argparse.Namespace) -> str:
        """The role that this process is listed under."""
        del arguments
        return cls.role

    @classmethod
    def options(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options of this kind of process."""

    # --------------------------------------------------------------------------------- overridden by each kind of process

    async def open(self) -> None:
        """Prepare to serve."""

    async def work(self) -> None:
        """The work in the background. An exception in it ends the process.

        Raises:
            Lost: if this process can't go on.
        """
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Release the resources that `open` took."""

    async def on_call(self, call: Call, message: Message) -> None:
        """Handle one call."""
        del call, message

    def health(self) -> str:
        """The reason why it cannot serve. Empty if it can."""
        return ""

    def metrics(self) -> dict[str, float]:
        """Gauges by name."""
        return {"reference_in_flight": self.in_flight}

    # -------------------------------------------------------------------------------------------------- one life of it

    def enter(self) -> None:
        """Count a request that begins."""
        self.in_flight += 1

    def leave(self) -> None:
        """Count a request that ended, well or not."""
        self.in_flight -= 1

    async def listen(self) -> None:
        """Start to accept calls."""
        self._server = Server(self.on_call, {"/health": self._health, "/metrics": self._metrics})
        await self._server.open(self.port)

    def deafen(self) -> None:
        """Stop accepting calls."""
        self._server.close()

    async def live(self) -> None:
        """Run the process from its start to its end.

        Raises:
            Lost: if this process can't go on.
        """
        terminated = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
        self.directory.open()
        await self.open()
        try:
            await self.listen()
            working = asyncio.ensure_future(self.work())
            joining = asyncio.ensure_future(self._member.join())
            terminating = asyncio.ensure_future(terminated.wait())
            await asyncio.wait((working, terminating), return_when=asyncio.FIRST_COMPLETED)
            joining.cancel()
            if working.done():
                working.result()
            await self.drain()
            working.cancel()
        finally:
            await self.close()

    async def drain(self) -> None:
        """End in order."""
        self.draining = True
        await self._member.leave()
        until_s = asyncio.get_running_loop().time() + DRAIN_MAX_S
        while not self.is_drained() and asyncio.get_running_loop().time() < until_s:
            await asyncio.sleep(DRAIN_POLL_S)
        self.deafen()

    def is_drained(self) -> bool:
        """True if no other process needs it any more."""
        return self.in_flight == 0

    def _health(self) -> tuple[int, str]:
        why = "draining" if self.draining else self.health()
        if not why and not self._member.joined:
            why = "not listed yet"
        return (503, f"{why}\n") if why else (200, f"{self.instance.name} is ready\n")

    def _metrics(self) -> tuple[int, str]:
        return 200, "".join(f"{name} {value:g}\n" for name, value in self.metrics().items())


def main(kind: type[Node], argv: Sequence[str] | None = None) -> None:
    """Run one process until it ends."""
    parser = argparse.ArgumentParser(description=kind.__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default=kind.__name__.lower(), help="of the replica")
    parser.add_argument(
        "--registries",
        type=lambda text: [int(port) for port in text.split(",") if port],
        default=[],
        help="ports of the registries, with commas between them",
    )
    kind.options(parser)
    try:
        _run(kind(parser.parse_args(argv)))
    except Lost as lost:
        print(f"{kind.__name__.lower()}: {lost}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None


def _run(node: Node) -> None:
    try:
        import uvloop  # noqa: PLC0415 - not there on every platform
    except ImportError:
        asyncio.run(node.live())
    else:
        uvloop.run(node.live())

"""The common part of all processes of the reference graph: a port, an entry in the registry, probes, and a graceful shutdown.

After SIGTERM, a process leaves the registry, refuses new calls, finishes its running calls (within `DRAIN_MAX_S`), and exits with status 0.
If a process cannot continue, e.g. because a rank of its engine died, it exits at once with status 1. Waiting callers then see their
connections close, and the process may be started again.
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
from graphquake.harness.reference.wire import LOOPBACK, Call, Message, Server

DRAIN_MAX_S: Final = 5.0
DRAIN_POLL_S: Final = 0.01


class Lost(Exception):
    """The process cannot continue. The text gives the reason."""


class Node:
    """One process of the reference graph. Each role is a subclass.

    Args:
        arguments: the parsed command line, with the options of `main` and of `options`.

    Attributes:
        role: the role that the process is listed under.
        member_kind: the class that keeps it listed. Planted bugs replace it.
        host, port: the address and the port on which the process accepts calls.
        directory: the instances that the registries list.
        draining: true after SIGTERM.
        in_flight: the number of requests that the process works on.
        instance: the entry of this process in the registry.
    """

    role: ClassVar[str]
    member_kind: ClassVar[type[Member]] = Member

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.host: str = arguments.host
        self.port: int = arguments.port
        self.directory = Directory(arguments.registries)
        self.draining = False
        self.in_flight = 0
        self.instance = Instance(
            secrets.token_hex(8),
            self.listed_as(arguments),
            arguments.name,
            arguments.port,
            arguments.host,
        )
        self._member = self.member_kind(self.instance, arguments.registries)

    @classmethod
    def listed_as(cls, arguments: argparse.Namespace) -> str:
        """Return the role that this process is listed under."""
        del arguments
        return cls.role

    @classmethod
    def options(cls, parser: argparse.ArgumentParser) -> None:
        """Add the command-line options of this kind of process to a parser."""

    # --------------------------------------------------------------------------------- overridden by each kind of process

    async def open(self) -> None:
        """Prepare to serve. The process accepts calls only after this returns."""

    async def work(self) -> None:
        """Do the background work of the process, until it is cancelled. If this method returns or raises, the process ends.

        Raises:
            Lost: if the process cannot continue.
        """
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Release the resources that `open` took."""

    async def on_call(self, call: Call, message: Message) -> None:
        """Handle one call. `message` is the first message of the caller."""
        del call, message

    def health(self) -> str:
        """Return the reason why the process cannot serve, or an empty text if it can."""
        return ""

    def metrics(self) -> dict[str, float]:
        """Return the gauges of the process, by their Prometheus names."""
        return {"reference_in_flight": self.in_flight}

    # ---------------------------------------------------------------------------------------------- one life of a process

    def enter(self) -> None:
        """Count a request that begins."""
        self.in_flight += 1

    def leave(self) -> None:
        """Count a request that has ended, with success or not."""
        self.in_flight -= 1

    async def listen(self) -> None:
        """Start to accept calls."""
        self._server = Server(self.on_call, {"/health": self._health, "/metrics": self._metrics})
        await self._server.open(self.host, self.port)

    def deafen(self) -> None:
        """Stop accepting calls."""
        self._server.close()

    async def live(self) -> None:
        """Run the process from its start until it was terminated and drained.

        Raises:
            Lost: if the process cannot continue.
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
        """Shut down gracefully: leave the registry, wait until the work is done (at most `DRAIN_MAX_S`), and stop accepting calls."""
        self.draining = True
        await self._member.leave()
        until_s = asyncio.get_running_loop().time() + DRAIN_MAX_S
        while not self.is_drained() and asyncio.get_running_loop().time() < until_s:
            await asyncio.sleep(DRAIN_POLL_S)
        self.deafen()

    def is_drained(self) -> bool:
        """True if the process has no work left that another process waits for."""
        return self.in_flight == 0

    def _health(self) -> tuple[int, str]:
        why = "draining" if self.draining else self.health()
        if not why and not self._member.joined:
            why = "not listed yet"
        return (503, f"{why}\n") if why else (200, f"{self.instance.name} is ready\n")

    def _metrics(self) -> tuple[int, str]:
        return 200, "".join(f"{name} {value:g}\n" for name, value in self.metrics().items())


def main(kind: type[Node], argv: Sequence[str] | None = None) -> None:
    """Run one process until it ends. If it cannot continue, print the reason and exit with status 1.

    Args:
        kind: the class of the process.
        argv: the command line without the program, or None for that of this process.
    """
    parser = argparse.ArgumentParser(description=kind.__doc__)
    parser.add_argument("--host", default=LOOPBACK, help="the address to listen on")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default=kind.__name__.lower(), help="of the replica")
    parser.add_argument(
        "--registries",
        type=_addresses,
        default=[],
        help="HOST:PORT of the registries, with commas between them; a port alone is on loopback",
    )
    kind.options(parser)
    try:
        _run(kind(parser.parse_args(argv)))
    except Lost as lost:
        print(f"{kind.__name__.lower()}: {lost}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None


def _addresses(text: str) -> list[str]:
    return [one if ":" in one else f"{LOOPBACK}:{one}" for one in text.split(",") if one]


def _run(node: Node) -> None:
    try:
        import uvloop  # noqa: PLC0415 - not there on every platform
    except ImportError:
        asyncio.run(node.live())
    else:
        uvloop.run(node.live())

"""Send GET requests to the replicas of a graph: for readiness probes, lists, and pages of metrics.

Each GET has its own connection, because the process at its other end may be dead when the next GET is sent. A GET goes straight to the
address in the graph file. Proxies that the environment names are not used.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import aiohttp
from aiohttp.connector import Connection

# The pause between two GETs of one wait, and the time limit of one GET.
POLL_S: Final = 0.02
ANSWER_WITHIN_S: Final = 1.0
# The longest answer that is read: a list of models or a page of metrics.
ANSWER_MAX_BYTES: Final = 8 << 20
# The number of ports that are remembered. A run sends some ten GETs a second, and asks for the ports several times a second.
PORTS_MAX: Final = 256


class Answer(NamedTuple):
    """The HTTP status and the text of an answer. If no answer came, the status is 0 and the text is the reason."""

    status: int
    text: str


class Prober:
    """Sends GET requests. Use it as an async context manager.

    Args:
        socket_factory: makes the sockets, if they must not be ordinary ones (see `Target.socket_factory`).

    Attributes:
        ports: the local TCP ports of the latest GETs, at most `PORTS_MAX`, the oldest first. The values have no meaning.
    """

    def __init__(self, socket_factory: Callable[[Any], socket.socket] | None = None) -> None:
        self.ports: dict[int, None] = {}
        self._socket_factory = socket_factory

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                force_close=True, limit=0, socket_factory=self._socket_factory
            ),
            timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S),
            response_class=self._response_class(),
        )
        return self

    def _response_class(self) -> type[aiohttp.ClientResponse]:
        """A response that notes the local port of its connection. aiohttp drops the connection as soon as the answer is complete."""
        note = self._note

        class Response(aiohttp.ClientResponse):
            async def start(self, connection: Connection) -> aiohttp.ClientResponse:
                if connection.transport is not None:
                    note(connection.transport.get_extra_info("sockname")[1])
                return await super().start(connection)

        return Response

    def _note(self, port: int) -> None:
        self.ports.pop(port, None)
        self.ports[port] = None
        if len(self.ports) > PORTS_MAX:
            del self.ports[next(iter(self.ports))]

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def get(self, url: str) -> Answer:
        """Send one GET and return the answer. If no answer comes in time, or the connection fails, return status 0 instead of an error."""
        try:
            async with self._session.get(url) as response:
                data = await response.content.read(ANSWER_MAX_BYTES)
                return Answer(response.status, data.decode("utf-8", "replace"))
        except TimeoutError:
            return Answer(0, f"no answer within {ANSWER_WITHIN_S:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(0, str(error) or type(error).__name__)

    async def until(self, url: str, body: str) -> None:
        """Wait, without a time limit, until a GET is answered with 200 and a text in which the regular expression `body` is found."""
        pattern = re.compile(body)
        while True:
            answer = await self.get(url)
            if answer.status == HTTPStatus.OK and pattern.search(answer.text):
                return
            await asyncio.sleep(POLL_S)

"""The load generator: steady load in an open or a closed loop, and bursts.

In the open loop the schedule is fixed before a run and follows from the load's seed. A request is never skipped because the server is down
or slow, and never sent twice. In the closed loop a client sends its next request when the last one has ended. It repeats a request that
failed or was shed, up to `max_retries` attempts in all.
Each `Request` records its outcome, and the time at which it should have left, so a history shows how late the clients were. The promises
decide whether a failure is excused.

Three choices keep the load realistic. Requests leave at jittered times: otherwise, a fault between two of these times would often find no
request in flight. The connection pool closes idle connections after a second, before a server would. A client whose connection is refused
tries the next entry, as a load balancer in front of several frontends does.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

import aiohttp

from graphquake.harness.clients.answers import MESSAGE_MAX, REJECTING, Checker, bytes_of
from graphquake.harness.clients.burst_schedule import STAYS, Manner, burst_schedule
from graphquake.harness.clients.milestones import Milestones
from graphquake.harness.history.request import (
    AS_ASKED,
    PROBE,
    STEADY,
    Exchange,
    Group,
    Outcome,
    Request,
)
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.load import RETRY_AFTER_S
from graphquake.harness.spec.steps.actions import BurstLike, Landed
from graphquake.harness.targets.target import SocketFactory

# The time within which an answer "too busy" must come to count as shed. After a longer time, the request counts as failed.
SHED_WITHIN_S: Final = 1.0
# The client closes a connection that was idle for this time. Servers do so after 5 s or more, and a request must not use a connection that
# the server is closing.
KEEPALIVE_S: Final = 1.0
# The largest number of exchanges that a run records. It is enough to see the errors, and small enough for a log.
EXCHANGES_MAX: Final = 300
READ_BUFFER_BYTES: Final = 1 << 16
PATHS: Final = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
# A client that leaves before the first token closes its connection this long after it has sent its request, or at the first byte of the
# answer. Then the graph has begun to work on the request, and most graphs have not made a token yet.
LEAVES_AFTER_S: Final = 0.01
# The headers by which an answer says where it ends.
_BOUNDS: Final = ("Content-Length", "Transfer-Encoding")
_WELL: Final = AS_ASKED | {Outcome.OK}
_HEADERS: Final = {"Content-Type": "application/json"}


class Load:
    """The load generator of one run.

    Args:
        spec: the graph. Its `load` describes the requests.
        entries: base URLs, one for each replica of the entry role.
        zero_s: `time.monotonic()` at the run's time 0.
        requests: the list to which each request is added when it is about to be sent.
        exchanges: the list to which lines with a request and its answer are added. Requests that ended well are left out.
            Only the first `EXCHANGES_MAX` others are kept.
        socket_factory: see `Target.socket_factory`.
    """

    def __init__(
        self,
        spec: GraphSpec,
        entries: list[str],
        zero_s: float,
        requests: list[Request],
        exchanges: list[str] | None = None,
        socket_factory: SocketFactory | None = None,
    ) -> None:
        self._load = spec.load
        self._urls = [entry.rstrip("/") + PATHS[spec.load.api] for entry in entries]
        self._zero_s = zero_s
        self._requests = requests
        self._exchanges = [] if exchanges is None else exchanges
        self._socket_factory = socket_factory
        self._checker = Checker(spec)
        self._checking = asyncio.Lock()
        # The requests of closed-loop clients have the first numbers. Bursts take the numbers after them.
        self._numbers = itertools.count(spec.load.clients * spec.load.requests_per_client)
        self._tasks = asyncio.TaskGroup()
        self._steady: list[asyncio.Task[None]] = []
        self._stopped = False
        self._running: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession
        self._open = 0
        self._milestones = Milestones()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEPALIVE_S, socket_factory=self._socket_factory
            ),
            timeout=aiohttp.ClientTimeout(),
            read_bufsize=READ_BUFFER_BYTES,
            skip_auto_headers=("Accept-Encoding", "User-Agent"),
        )
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            await self._session.close()

    def now_s(self) -> float:
        """Return the time on the run's clock, in seconds."""
        return time.monotonic() - self._zero_s

    @property
    def in_flight(self) -> int:
        """The number of requests that were sent and have not ended."""
        return self._milestones.in_flight

    async def until_in_flight(self, requests: int, within_s: float) -> Landed:
        """Wait until at least so many requests are in flight. See `Clients`."""
        return await self._milestones.until_in_flight(requests, within_s)

    async def until_first_token(self, within_s: float) -> Landed:
        """Wait until a client gets the first token of a streamed answer. See `Clients`."""
        return await self._milestones.until_first_token(within_s)

    def start(self) -> None:
        """Start the steady load: the clients of the closed loop, or the schedule of the open loop."""
        clients = [self._be_client(index) for index in range(self._load.clients)]
        steady = clients or [self._send_steadily()]
        self._steady = [self._tasks.create_task(one) for one in steady]

    @property
    def is_over(self) -> bool:
        """True if all clients of a closed loop have finished. In the open loop it is always false."""
        return self._load.clients > 0 and all(client.done() for client in self._steady)

    async def clients_end(self) -> None:
        """Wait until all requests of all clients of a closed loop have ended. In the open loop, return at once."""
        if self._load.clients:
            await asyncio.wait(self._steady)

    def stop(self) -> None:
        """Stop the steady load. In-flight requests go on."""
        self._stopped = True
        if not self._load.clients:
            for task in self._steady:
                task.cancel()

    def abort(self) -> None:
        """Stop the steady load and all bursts, and cancel their in-flight requests, which get no outcome."""
        self.stop()
        for task in (*self._steady, *self._running):
            task.cancel()

    def burst(self, step: int, burst: BurstLike) -> None:
        """Start a burst: `burst.requests` requests within the next `burst.over_s` seconds.

        Args:
            step: the place of the burst's step in the plan, from 0. It becomes part of the `Group` of the requests.
            burst: the numbers of the burst.
        """
        self._keep(self._tasks.create_task(self._send_burst(step, burst)))

    async def idle(self) -> None:
        """Wait until every request that was sent has its outcome. The wait is bounded, because each request has a deadline."""
        while self._open:
            await asyncio.sleep(0.01)

    async def ask_once(self) -> Request:
        """Send one request that enters no history, and return that request when it has ended."""
        # Only if the load has streams: not every server can stream.
        stream = self._load.stream > 0
        request = Request(next(self._numbers), PROBE, stream, intended_s=self.now_s())
        await self._attempt(request)
        return request

    async def _send_steadily(self) -> None:
        begin_s, period_s = self.now_s(), 1.0 / self._load.rate_per_s
        # Each request leaves at a random time within its own period. So the mean rate is exact, and requests are not evenly spaced.
        draw = random.Random(self._load.seed)
        for tick in itertools.count():
            at_s = begin_s + (tick + draw.random()) * period_s
            await self._send_at(at_s, STEADY, stream=draw.random() < self._load.stream)

    async def _be_client(self, index: int) -> None:
        load = self._load
        draw = random.Random(f"{load.seed}/client {index}")
        for turn in range(load.requests_per_client):
            stream = draw.random() < load.stream
            number = turn * load.clients + index
            for attempt in range(load.max_retries):
                if self._stopped:
                    return
                request = Request(
                    number, Group("client", index), stream, intended_s=self.now_s(), attempt=attempt
                )
                self._requests.append(request)
                await self._attempt(request)
                if not request.failed and request.outcome != Outcome.SHED:
                    break
                await asyncio.sleep(RETRY_AFTER_S)

    async def _send_burst(self, step: int, burst: BurstLike) -> None:
        begin_s = self.now_s()
        draw = random.Random(f"{self._load.seed}/{step}")
        for at_s, manner in burst_schedule(burst, draw):
            # Only streams have a first token that a client can see.
            stream = manner.kind == "leaves" or draw.random() < self._load.stream
            await self._send_at(begin_s + at_s, Group("burst", step), stream=stream, manner=manner)

    async def _send_at(
        self, at_s: float, group: Group, *, stream: bool, manner: Manner = STAYS
    ) -> None:
        delay_s = at_s - self.now_s()
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        request = Request(next(self._numbers), group, stream, intended_s=at_s)
        request.manner = manner.kind
        self._requests.append(request)
        self._keep(self._tasks.create_task(self._attempt(request, manner)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _attempt(self, request: Request, manner: Manner = STAYS) -> None:
        """Send a request, read its answer and check it. A cancelled request has no outcome, and promises do not judge it."""
        self._open += 1
        request.sent_s = request.last_s = self.now_s()
        request.quiet_from_s = request.quiet_to_s = request.sent_s
        exchange = Exchange()
        try:
            if await self._ask_in_time(request, exchange, manner):
                await self._check(request, exchange)
        finally:
            self._open -= 1
        if request.outcome not in _WELL and len(self._exchanges) < EXCHANGES_MAX:
            self._exchanges.append(exchange.line(request))

    async def _ask_in_time(self, request: Request, exchange: Exchange, manner: Manner) -> bool:
        """Send a request and read its answer within the deadline.

        Returns:
            True if the answer is complete and must be checked. Otherwise the outcome of the request is set.
        """
        self._milestones.sent()
        try:
            async with asyncio.timeout(self._load.deadline_s):
                return await self._ask(request, exchange, manner)
        except TimeoutError:
            self._end(request, Outcome.TIMED_OUT, "deadline", f"after {self._load.deadline_s:g} s")
        except aiohttp.ClientConnectorError as error:
            self._end(request, Outcome.REFUSED, "connection refused", str(error.os_error))
        except (aiohttp.ClientError, OSError) as error:
            self._end(request, *_lost(request), f"{type(error).__name__}: {error}")
        finally:
            self._milestones.ended()
        return False

    async def _ask(self, request: Request, exchange: Exchange, manner: Manner) -> bool:
        """Send a request and read its answer, without a time limit. The result is that of `_ask_in_time`."""
        exchange.asked = bytes_of(self._load, request)
        leaves_at_once = manner.kind == "leaves at once"
        try:
            async with asyncio.timeout(LEAVES_AFTER_S if leaves_at_once else None):
                response = await self._post(request, exchange)
        except TimeoutError:
            self._end(request, Outcome.LEFT, "left before the first token")
            return False
        async with response:
            if response.status != HTTPStatus.OK:
                exchange.answer += await response.read()
                message = exchange.answer[:MESSAGE_MAX].decode("utf-8", "replace")
                outcome = self._declined(request, response.status)
                self._end(request, outcome, f"HTTP {response.status}", " ".join(message.split()))
                return False
            if leaves_at_once:
                response.close()
                self._end(request, Outcome.LEFT, "left before the first token")
                return False
            exchange.bounded = any(name in response.headers for name in _BOUNDS)
            leaves_at = manner.at_token if manner.kind == "leaves" else 0
            if await self._read(request, response, exchange.answer, leaves_at):
                after = "the first token" if leaves_at == 1 else f"token {leaves_at}"
                self._end(request, Outcome.LEFT, f"left after {after}")
                response.close()
                return False
        return True

    def _declined(self, request: Request, status: int) -> Outcome:
        """Return the outcome of a request that was answered with another status than 200."""
        if status in self._load.shed and self.now_s() - request.sent_s <= SHED_WITHIN_S:
            return Outcome.SHED
        is_right = request.must_be_refused and status in REJECTING
        return Outcome.REJECTED if is_right else Outcome.ERROR

    async def _check(self, request: Request, exchange: Exchange) -> None:
        ended_s = self.now_s()
        check = self._checker.check_stream if request.stream else self._checker.check_whole
        # After a stall a hundred answers come at once, and an oracle may take milliseconds for each. Each turn of the event loop makes only
        # one check, so that requests that are due leave between two checks. A free lock alone would not yield to other tasks.
        async with self._checking:
            await asyncio.sleep(0)
            got = check(request.number, bytes(exchange.answer))
        if request.must_be_refused:
            got = self._checker.check_refused(request, got)
        request.tokens = got.tokens
        if got.outcome == Outcome.TRUNCATED and not exchange.bounded:
            self._end(request, *_lost(request), got.detail, at_s=ended_s)
            return
        self._end(request, got.outcome, got.detail, got.message, at_s=ended_s)

    async def _post(self, request: Request, exchange: Exchange) -> aiohttp.ClientResponse:
        """Send a request to the entry that its number selects. If that entry refuses the connection, try the other entries in turn."""
        for turn in range(len(self._urls)):
            exchange.entry = url = self._urls[(request.number + turn) % len(self._urls)]
            try:
                return await self._session.post(url, data=exchange.asked, headers=_HEADERS)
            except aiohttp.ClientConnectorError:
                if turn == len(self._urls) - 1:
                    raise
        raise AssertionError("a graph has at least one entry")

    async def _read(
        self,
        request: Request,
        response: aiohttp.ClientResponse,
        answer: bytearray,
        leaves_at: int,
    ) -> bool:
        """Read the body of a response into `answer`. True if the client left after the token `leaves_at`. 0 means that it stays."""
        async for part in response.content.iter_any():
            now_s = self.now_s()
            _heard(request, now_s)
            request.last_s = now_s
            answer += part
            if request.stream and b"data:" in part:
                request.tokens += part.count(b"data:")
                if request.first_s != request.first_s:  # still NaN: this is the first token
                    request.first_s = now_s
                    self._milestones.first_token(request)
                if 0 < leaves_at <= request.tokens:
                    return True
        return False

    def _end(
        self,
        request: Request,
        outcome: Outcome,
        detail: str,
        message: str = "",
        at_s: float | None = None,
    ) -> None:
        request.ended_s = self.now_s() if at_s is None else at_s
        request.outcome, request.detail = outcome, detail
        request.message = message[:MESSAGE_MAX]
        _heard(request, request.ended_s)
        if outcome == Outcome.OK and not request.stream:
            request.first_s = request.ended_s


def _lost(request: Request) -> tuple[Outcome, str]:
    """Return the outcome and the detail of a request whose connection broke before its answer was complete."""
    if request.stream and request.tokens:
        return Outcome.TRUNCATED, "stream cut"
    return Outcome.ERROR, "connection lost"


def _heard(request: Request, now_s: float) -> None:
    """Note that a request got a byte, or ended. Record the interval since its last byte, if that is its longest one so far.

    Args:
        request: the request.
        now_s: the time of the byte or of the end, in seconds on the run's clock.
    """
    if now_s - request.last_s > request.quiet_to_s - request.quiet_from_s:
        request.quiet_from_s, request.quiet_to_s = request.last_s, now_s

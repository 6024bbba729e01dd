"""The load that clients send to a graph, read from `[load]` of its file.

Open loop (`rate_per_s`): the time of each request is fixed before the run. Closed loop (`clients`): each client sends its next request
when its last request has ended, as in Dynamo's fault tolerance suite. A client repeats a failed request, up to `max_retries` attempts in
all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from graphquake.harness.spec.table import Table

Api: TypeAlias = Literal["completions", "chat"]

# The largest values that a graph file may give: a graph that needs more does not fit on one machine.
RATE_MAX_PER_S: Final = 10_000.0
CLIENTS_MAX: Final = 10_000
REQUESTS_MAX: Final = 1_000_000
# The pause of a closed-loop client after a failed request, as in Dynamo's fault tolerance suite.
RETRY_AFTER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """The requests that the clients of a run send.

    Attributes:
        model: the name of the model in each request.
        rate_per_s: open loop: the number of requests per second. Keep it below half of the rate that one replica of each role can serve.
        prompt_tokens: the length of each prompt, in tokens.
        max_tokens: the length of each answer, in tokens.
        too_long_tokens: the length of a prompt that is longer than the model's context, in tokens. 0 if the file does not give one.
        malformed: true if the graph refuses malformed requests with a status 4xx, so that a search may draw them.
        stream: the share of requests with a streamed answer, 0 to 1.
        deadline_s: the time from sending after which a client gives up a request, in seconds.
        shed: HTTP statuses that mean "too busy". A request with such a status is shed, not failed, if the status comes within a second.
        api: the endpoint that clients use: `completions` or `chat`.
        seed: the seed of the prompts, and of the choice of requests that are streamed.
        clients: the number of clients of the closed loop. If it is 0, the load is an open loop.
        requests_per_client: closed loop: the number of requests of each client.
        max_retries: closed loop: the largest number of attempts for one request, the first attempt included.
    """

    model: str
    rate_per_s: float = 10.0
    prompt_tokens: int = 64
    max_tokens: int = 32
    too_long_tokens: int = 0
    malformed: bool = False
    stream: float = 0.5
    deadline_s: float = 8.0
    shed: tuple[int, ...] = ()
    api: Api = "completions"
    seed: int = 7
    clients: int = 0
    requests_per_client: int = 100
    max_retries: int = 1

    def most_in(self, length_s: float) -> float:
        """Return the number of steady requests that can fail within `length_s` seconds, if each request fails at once.

        In an open loop, each request is sent at a random moment of its own interval. So one more may be sent at each end of the time. Those
        two are not counted here: `spare_failures` of the promise `error_window` allows for them.
        """
        if self.clients:
            return self.clients * (length_s // RETRY_AFTER_S + 1)
        return self.rate_per_s * length_s

    @property
    def rest_s(self) -> float:
        """The longest time in which no client sends a request, in seconds. Closed-loop clients pause after a failure."""
        return RETRY_AFTER_S if self.clients else 0.0

    def __str__(self) -> str:
        if self.clients:
            return f"{self.clients} clients, {self.requests_per_client} requests each"
        return f"{self.rate_per_s:g} requests/s"


def read_load(table: Table) -> LoadSpec:
    """Read the load of a graph file.

    Raises:
        InputError: if a value is wrong. It names the key, the value that was found and a correct one.
    """
    load = LoadSpec(
        model=table.text("model"),
        rate_per_s=table.number("rate_per_s", 10.0, at_least=0.1, at_most=RATE_MAX_PER_S),
        prompt_tokens=table.whole("prompt_tokens", 64, at_least=1, at_most=1_000_000),
        max_tokens=table.whole("max_tokens", 32, at_least=1, at_most=1_000_000),
        too_long_tokens=table.whole("too_long_tokens", 0, at_most=1_000_000),
        malformed=table.flag("malformed", default=False),
        stream=table.number("stream", 0.5, at_most=1.0),
        deadline_s=table.number("deadline_s", 8.0, at_least=0.1, at_most=3600),
        shed=table.wholes("shed"),
        api=table.choice("api", get_args(Api), "completions"),
        seed=table.whole("seed", 7),
        clients=table.whole("clients", 0, at_most=CLIENTS_MAX),
        requests_per_client=table.whole(
            "requests_per_client", 100, at_least=1, at_most=REQUESTS_MAX
        ),
        max_retries=table.whole("max_retries", 1, at_least=1, at_most=100),
    )
    table.done()
    if 0 < load.too_long_tokens <= load.prompt_tokens:
        raise table.error(
            "too_long_tokens",
            f"found {load.too_long_tokens}, expected more than prompt_tokens ({load.prompt_tokens}), which the graph answers",
        )
    return load

"""What the clients of a graph send, read from the `[load]` of its file.

Open loop (`rate_per_s`): a schedule that is fixed before the run. Closed loop (`clients`): each of them sends its next request when
the one before has ended, as the clients of fault tolerance suites do; a request that failed is tried again, `max_retries` times in all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from graphquake.harness.spec.table import Table

Api: TypeAlias = Literal["completions", "chat"]

# Bounds on what a file may ask for; a graph that needs more is not one machine's.
RATE_MAX_PER_S: Final = 10_000.0
CLIENTS_MAX: Final = 10_000
REQUESTS_MAX: Final = 1_000_000
# How long a client of a closed loop rests after a request that failed, as the clients of Dynamo's fault tolerance suite do.
RETRY_AFTER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """The requests that a run sends all the while.

    Attributes:
        rate_per_s: steady requests per second; keep it under half of what one replica of each role can do.
        stream: the share of requests that are streamed, 0 to 1.
        deadline_s: when a client gives a request up, in seconds.
        shed: HTTP statuses by which the graph says "too busy"; no failure if they come at once.
        clients: so many clients in a closed loop instead of `rate_per_s`; 0 is the open loop.
        requests_per_client: closed loop: what each of them asks before it ends.
        max_retries: closed loop: how often a request is tried, the first time included.
    """

    model: str
    rate_per_s: float = 10.0
    prompt_tokens: int = 64
    max_tokens: int = 32
    stream: float = 0.5
    deadline_s: float = 8.0
    shed: tuple[int, ...] = ()
    api: Api = "completions"
    seed: int = 7
    clients: int = 0
    requests_per_client: int = 100
    max_retries: int = 1

    def most_in(self, length_s: float) -> float:
        """How many requests can fail within that time, if each does at once."""
        if self.clients:
            return self.clients * (length_s // RETRY_AFTER_S + 1)
        # The schedule is jittered by up to one interval at either end.
        return self.rate_per_s * length_s + 2

    @property
    def rest_s(self) -> float:
        """How long nobody may ask anything, since all clients rest after a failure."""
        return RETRY_AFTER_S if self.clients else 0.0

    def __str__(self) -> str:
        if self.clients:
            return f"{self.clients} clients, {self.requests_per_client} requests each"
        return f"{self.rate_per_s:g} requests/s"


def read_load(table: Table) -> LoadSpec:
    """The load of a graph file.

    Raises:
        InputError: says which key is wrong, what was found and what would be right.
    """
    load = LoadSpec(
        model=table.text("model"),
        rate_per_s=table.number("rate_per_s", 10.0, at_least=0.1, at_most=RATE_MAX_PER_S),
        prompt_tokens=table.whole("prompt_tokens", 64, at_least=1, at_most=1_000_000),
        max_tokens=table.whole("max_tokens", 32, at_least=1, at_most=1_000_000),
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
    return load

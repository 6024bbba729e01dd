"""What happened in one run: events and requests, in memory and on disk.

A history is all that a verdict may rest on. Times are seconds on the run's own monotonic clock, which is 0 when the baseline
begins; what came before (starting the graph) has negative times. On disk a run is one folder that a person can read:

    plan.txt        the plan, a line a step
    graph.json      the graph file as it was read
    events.jsonl    one event a line
    requests.csv    one request a line
    verdict.json    what the promises said
    logs/           a file for each incarnation of each replica; clients.jsonl: what was asked and answered where it went wrong

`History.load` gives back what `History.save` wrote, so an old run can be judged again without being run again.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from graphquake.harness.errors import InputError
from graphquake.harness.plan import Plan, read_plan
from graphquake.harness.spec import GraphSpec, read_graph

# What one folder may hold: a log that a dying process filled with the same line is no evidence past this.
LOG_MAX_BYTES: Final = 1 << 20
# The same for what one request said and was told.
EXCHANGE_MAX_BYTES: Final = 1 << 10

# ------------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Spawned:
    """An incarnation got its pid."""

    at_s: float
    replica: str
    incarnation: int
    pid: int


@dataclass(frozen=True, slots=True)
class BecameReady:
    """An incarnation passed its readiness probe for the first time."""

    at_s: float
    replica: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Died:
    """An incarnation ended.

    Attributes:
        status: the exit code, or minus the signal's number.
        aimed: whether a step (or the harness itself) had aimed at it.
    """

    at_s: float
    replica: str
    incarnation: int
    pid: int
    status: int
    aimed: bool


@dataclass(frozen=True, slots=True)
class PhaseBegan:
    """The run entered a phase: baseline, plan, heal, recover, steady, drain."""

    at_s: float
    phase: str


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step ended.

    Attributes:
        begun_s: when it began.
        number: its place in the plan, from 0.
        landed: whether it took effect; a fault that did not makes the run invalid.
        proof: what was seen of it.
        victim: the replica it aimed at, if it is a fault or a respawn.
    """

    at_s: float
    begun_s: float
    number: int
    step: str
    landed: bool
    proof: str
    fault: bool = False
    victim: str = ""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A replica that had been stalled was let go on.

    Attributes:
        proof: what was seen of it.
    """

    at_s: float
    replica: str
    proof: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What the graph said about itself changed, or what it should have said did.

    Attributes:
        observer: the replica that was asked.
        what: `listing` (how many it lists) or `readiness` (1 or 0).
        says: its answer; -1 if it gave none.
        holds: what would be right; 0 with `says` 0 if it can't be asked any more.
    """

    at_s: float
    observer: str
    what: str
    says: int
    holds: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What a replica used, and what it said about its load.

    Attributes:
        cores: how many cores its processes kept busy since the sample before; 0 in their first one.
        rss_bytes, gpu_bytes: the memory that they hold.
        in_flight, waiting: requests, by its metrics; None where it tells no such thing.
        kv_usage: the share of its KV cache that is taken, 0 to 1.
    """

    at_s: float
    replica: str
    cores: float
    rss_bytes: int
    gpu_bytes: int = 0
    in_flight: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None


@dataclass(frozen=True, slots=True)
class Leaked:
    """Something was still there after the load had ended and its grace was over."""

    at_s: float
    kind: str
    what: str


@dataclass(frozen=True, slots=True)
class Invalidated:
    """A cause for which the run proves nothing from here on."""

    at_s: float
    cause: str


Event: TypeAlias = (
    Spawned | BecameReady | Died | PhaseBegan | StepDone | Resumed | Seen | Measured | Leaked | Invalidated
)  # fmt: skip
_EVENT_KINDS: Final[dict[str, Callable[..., Event]]] = {
    kind.__name__: kind
    for kind in (
        Spawned,
        BecameReady,
        Died,
        PhaseBegan,
        StepDone,
        Resumed,
        Seen,
        Measured,
        Leaked,
        Invalidated,
    )
}

# ----------------------------------------------------------------------------------------------------------- requests

OK: Final = "ok"
SHED: Final = "shed"
REFUSED: Final = "refused"
ERROR: Final = "error"
TRUNCATED: Final = "truncated"
WRONG: Final = "wrong"
STALLED: Final = "stalled"
LEFT: Final = "left"
# What a promise may have to excuse. A wrong answer is never excused; shed and left are no failures.
FAILED: Final = frozenset({REFUSED, ERROR, TRUNCATED, STALLED})


@dataclass(slots=True)
class Request:
    """One attempt of one client.

    Attributes:
        number: its place in the schedule; prompt and right answer follow from it and the load's seed.
        group: `steady`, or `client N` of a closed loop, or `burst N` with the number of the step.
        intended_s, sent_s, first_s, last_s, ended_s: on the run's clock. first_s is the first token's, NaN if there was
            none; last_s the last byte's, or sent_s.
        quiet_from_s, quiet_to_s: the longest stretch without a byte.
        outcome: one of the constants above.
        detail: what the outcome rests on, e.g. `HTTP 503`, `stream cut`, `error event`.
        message: what the server said, shortened.
        tokens: how many came.
        attempt: in a closed loop, how often the same was asked before.
    """

    number: int
    group: str
    stream: bool
    intended_s: float
    sent_s: float = float("nan")
    first_s: float = float("nan")
    last_s: float = float("nan")
    ended_s: float = float("nan")
    quiet_from_s: float = float("nan")
    quiet_to_s: float = float("nan")
    outcome: str = ""
    detail: str = ""
    message: str = ""
    tokens: int = 0
    attempt: int = 0

    @property
    def steady(self) -> bool:
        """Whether it is of the load that goes on all the while, and of no burst."""
        return not self.group.startswith("burst ")

    @property
    def failed(self) -> bool:
        """Whether this outcome has to be excused."""
        return self.outcome in FAILED

    @property
    def latency_s(self) -> float:
        """From sending to the last byte."""
        return self.ended_s - self.sent_s


@dataclass(slots=True)
class Exchange:
    """What a client and the graph said to each other in one request, for a reader: no promise looks at it.

    Attributes:
        entry: the URL that took the request, or refused it last.
        answer: what came, as it came; HTTP headers left out.
    """

    asked: bytes = b""
    entry: str = ""
    answer: bytearray = field(default_factory=bytearray)

    def line(self, request: Request) -> str:
        """One line of JSON, long texts without their middle."""
        return json.dumps(
            {
                "number": request.number,
                "group": request.group,
                "sent_s": round(request.sent_s, 6),
                "ended_s": round(request.ended_s, 6),
                "outcome": request.outcome,
                "detail": request.detail,
                "entry": self.entry,
                "asked": _shorten(self.asked),
                "answer": _shorten(self.answer),
            }
        )


def _shorten(said: bytes | bytearray) -> str:
    """The text; of a long one its begin and its end."""
    if len(said) > EXCHANGE_MAX_BYTES:
        half = EXCHANGE_MAX_BYTES // 2
        said = said[:half] + " … ".encode() + said[-half:]
    return said.decode("utf-8", "replace")


# ------------------------------------------------------------------------------------------------------------ history

_E = TypeVar(
    "_E",
    Spawned,
    BecameReady,
    Died,
    PhaseBegan,
    StepDone,
    Resumed,
    Seen,
    Measured,
    Leaked,
    Invalidated,
)


@dataclass(slots=True)
class History:
    """All that happened in one run.

    Attributes:
        exchanges: a line for each request that did not end well, the first ones if there are many. On disk only for a reader.
        host: where it ran (cores, versions), for the record.
    """

    spec: GraphSpec
    plan: Plan
    events: list[Event] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    exchanges: list[str] = field(default_factory=list)
    host: dict[str, str] = field(default_factory=dict)

    def of(self, kind: type[_E]) -> Iterator[_E]:
        """The events of one kind, in order of time."""
        return (event for event in self.events if isinstance(event, kind))

    def phase_began_s(self, phase: str) -> float | None:
        """When a phase began; None if the run did not get there."""
        return next((e.at_s for e in self.of(PhaseBegan) if e.phase == phase), None)

    def phase_at(self, at_s: float) -> str:
        """The phase at that time."""
        name = "acquire"
        for event in self.of(PhaseBegan):
            if event.at_s <= at_s:
                name = event.phase
        return name

    def faults(self) -> list[StepDone]:
        """The faults that landed."""
        return [step for step in self.of(StepDone) if step.fault and step.landed]

    def undisturbed_s(self) -> float | None:
        """Until when nothing was done to the graph: until the first step that is no wait began. None if the plan has not begun."""
        begun = (s.begun_s for s in self.of(StepDone) if not s.step.startswith("wait "))
        healed_s = self.phase_began_s("heal")
        return next(begun, self.phase_began_s("plan") if healed_s is None else healed_s)

    def disturbed(self) -> list[tuple[float, float]]:
        """When something happened to the graph for which requests may fail: each fault, and each end of a stall; from when to when."""
        ends = [(event.at_s, event.at_s) for event in self.of(Resumed)]
        return sorted([*((fault.begun_s, fault.at_s) for fault in self.faults()), *ends])

    def ended(self) -> list[Request]:
        """The requests that came to an end, by the time of it."""
        return sorted((r for r in self.requests if r.outcome), key=lambda r: r.ended_s)

    @property
    def end_s(self) -> float:
        """The time of the last thing that happened."""
        last_event = max((e.at_s for e in self.events), default=0.0)
        return max(last_event, max((r.ended_s for r in self.requests if r.outcome), default=0.0))

    def save(self, folder: Path) -> None:
        """Write plan, graph, events and requests into a folder that exists."""
        (folder / "plan.txt").write_text(f"{self.plan}\n", encoding="utf-8")
        graph = {"source": self.spec.path.name, "path": str(self.spec.path), "host": self.host}
        graph_text = json.dumps(graph | {"document": self.spec.document}, indent=1)
        (folder / "graph.json").write_text(graph_text + "\n", encoding="utf-8")
        with (folder / "events.jsonl").open("w", encoding="utf-8") as file:
            for event in self.events:
                file.write(json.dumps({"event": type(event).__name__, **asdict(event)}) + "\n")
        names = [f.name for f in fields(Request)]
        with (folder / "requests.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            for request in self.requests:
                writer.writerow([_cell(getattr(request, name)) for name in names])
        (folder / "logs").mkdir(exist_ok=True)
        exchanges = "".join(f"{line}\n" for line in self.exchanges)
        (folder / "logs" / "clients.jsonl").write_text(exchanges, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> History:
        """Read a run's folder.

        Raises:
            InputError: if it is not the folder of a run, or damaged.
        """
        if not (folder / "events.jsonl").is_file():
            raise InputError(f"{folder}: is no folder of a run (it has no events.jsonl)")
        try:
            graph = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
            spec = read_graph(graph["source"], graph["document"], Path(graph["path"]))
            plan = read_plan("plan.txt", (folder / "plan.txt").read_text(encoding="utf-8"))
            with (folder / "events.jsonl").open(encoding="utf-8") as lines:
                events = [_event(json.loads(line)) for line in lines]
            with (folder / "requests.csv").open(encoding="utf-8", newline="") as file:
                requests = [_request(row) for row in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder}: is damaged: {type(error).__name__}: {error}") from None
        return cls(spec, plan, events, requests, host=dict(graph["host"]))


def _cell(value: object) -> object:
    return f"{value:.6f}" if isinstance(value, float) else value


def _event(row: dict[str, Any]) -> Event:
    return _EVENT_KINDS[row.pop("event")](**row)


def _request(row: Mapping[str, str]) -> Request:
    return Request(
        number=int(row["number"]),
        group=row["group"],
        stream=row["stream"] == "True",
        intended_s=float(row["intended_s"]),
        sent_s=float(row["sent_s"]),
        first_s=float(row["first_s"]),
        last_s=float(row["last_s"]),
        ended_s=float(row["ended_s"]),
        quiet_from_s=float(row["quiet_from_s"]),
        quiet_to_s=float(row["quiet_to_s"]),
        outcome=row["outcome"],
        detail=row["detail"],
        message=row["message"],
        tokens=int(row["tokens"]),
        attempt=int(row.get("attempt", 0)),
    )


def bound_log(path: Path, most_bytes: int = LOG_MAX_BYTES) -> None:
    """Cut the middle out of a log that is longer than it may be; its beginning and end stay."""
    size = path.stat().st_size
    if size <= most_bytes:
        return
    half = most_bytes // 2
    with path.open("rb") as file:
        begin = file.read(half)
        file.seek(size - half)
        end = file.read(half)
    note = f"\n… {size - 2 * half} bytes left out …\n".encode()
    path.write_bytes(begin + note + end)

"""The record of one run: events and requests, in memory and on disk.

A verdict depends on the history alone. Times are seconds on the run's own monotonic clock. The clock is 0 when the baseline begins, so
events of the graph's start have negative times. On disk a run is one folder of text files:

    plan.txt        the plan, one step a line
    graph.json      the graph file as it was read, the machine and the versions
    events.jsonl    one event a line
    requests.csv    one request a line
    notices.jsonl   the notices of a cluster about the graph, one a line; only if there are any
    logs/           a file for each incarnation of each replica; clients.jsonl has the exchanges of requests that did not end well

`run.live` adds verdict.json, and `picture` adds run.html.

`History.load` reads what `History.save` wrote, except the exchanges, so an old run can be judged again. The times of requests are rounded
to 1 µs.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, get_args

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import (
    EVENT_KINDS,
    E,
    Event,
    Phase,
    PhaseBegan,
    Resumed,
    StepDone,
    Undone,
)
from graphquake.harness.history.host import Host
from graphquake.harness.history.notices import Notice, read_notices, write_notices
from graphquake.harness.history.request import Group, MannerKind, Outcome, Request
from graphquake.harness.spec.bounds import as_meant_then
from graphquake.harness.spec.graph import GraphSpec, read_graph
from graphquake.harness.spec.plan import Plan, parse_step, read_plan
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.network.fault import LinkFault
from graphquake.harness.spec.table import one_of

# The form of graph.json. Older folders have no `schema`, see `_as_meant_then`.
_SCHEMA: Final = 2
# The fields of events that hold a replica, and the fields that are written as text.
_REPLICAS: Final = frozenset({"replica", "observer"})
_AS_TEXT: Final = _REPLICAS | {"step", "victim"}


@dataclass(slots=True)
class History:
    """The record of one run.

    Attributes:
        spec: the graph of the run.
        plan: the plan of the run.
        events: the events of the run.
        requests: the requests of the run, ended or still in flight.
        exchanges: a line of JSON for each of the first requests that did not end well (see `Exchange`). `load` does not read these lines.
        host: the time, the machine and the versions of the run. No promise uses them.
        notices: the notices of a cluster about the graph. No promise uses them.
    """

    spec: GraphSpec
    plan: Plan
    events: list[Event] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    exchanges: list[str] = field(default_factory=list)
    host: Host = field(default_factory=Host)
    notices: list[Notice] = field(default_factory=list)

    def of(self, kind: type[E]) -> Iterator[E]:
        """Return the events of one kind, in the order in which they were recorded."""
        return (event for event in self.events if isinstance(event, kind))

    def phase_began_s(self, phase: Phase) -> float | None:
        """Return the time at which a phase began, in seconds, or None if the run did not reach this phase."""
        return next((e.at_s for e in self.of(PhaseBegan) if e.phase == phase), None)

    def faults(self) -> list[StepDone]:
        """Return the faults that landed, in the order in which they were recorded."""
        return [step for step in self.of(StepDone) if step.fault and step.landed]

    def endings(self) -> Iterator[tuple[StepDone, Replica, float]]:
        """Yield each time at which a fault told a replica to end: the fault, the replica, and the time in seconds. A roll tells several."""
        for fault in self.faults():
            if fault.told:
                yield from ((fault, replica, at_s) for at_s, replica in fault.told)
            elif fault.victim and fault.step.effect(self.spec) == "ends":
                yield fault, fault.victim, fault.begun_s

    def undisturbed_s(self) -> float | None:
        """Return the end of the undisturbed period, in seconds, or None if the plan has not begun.

        A step is recorded when it ends. This is the start of the first recorded step that is not a wait. If none is recorded, it is the
        start of heal. If heal has not begun either, it is the start of the plan.
        """
        begun = (s.begun_s for s in self.of(StepDone) if not s.waits)
        healed_s = self.phase_began_s("heal")
        return next(begun, self.phase_began_s("plan") if healed_s is None else healed_s)

    def disturbed(self) -> list[tuple[float, float]]:
        """Return the start and the end of each fault and of each end of a fault, in seconds, sorted. Such events may excuse failures."""
        ends = [(event.at_s, event.at_s) for event in self.of(Resumed)]
        ends += [(event.at_s, event.at_s) for event in self.of(Undone) if event.step.is_fault]
        undone_s = {event.number: event.at_s for event in self.of(Undone)}
        for fault in self.faults():
            if isinstance(fault.step, LinkFault):
                until_s = undone_s.get(fault.number)
                ends += fault.step.disturbs_s(fault.begun_s, fault.at_s, until_s, self.end_s)
                continue
            # A roll lasts long, and disturbs the graph at each of its terminations.
            ends += [(at_s, at_s) for at_s, _ in fault.told] or [(fault.begun_s, fault.at_s)]
        return sorted(ends)

    def ended(self) -> list[Request]:
        """Return the requests that have ended, in the order of their ends."""
        return sorted((r for r in self.requests if r.outcome), key=lambda r: r.ended_s)

    @property
    def end_s(self) -> float:
        """The time of the last event or of the last end of a request, whichever is later, in seconds."""
        last_event = max((e.at_s for e in self.events), default=0.0)
        return max(last_event, max((r.ended_s for r in self.requests if r.outcome), default=0.0))

    def save(self, folder: Path) -> None:
        """Write the plan, the graph, the events, the requests and the exchanges into a folder. The folder must exist."""
        (folder / "plan.txt").write_text(f"{self.plan}\n", encoding="utf-8")
        graph = {
            "schema": _SCHEMA,
            "source": self.spec.path.name,
            "path": str(self.spec.path),
            "host": self.host.to_json(),
        }
        graph_text = json.dumps(graph | {"document": self.spec.document}, indent=1)
        (folder / "graph.json").write_text(graph_text + "\n", encoding="utf-8")
        with (folder / "events.jsonl").open("w", encoding="utf-8") as file:
            for event in self.events:
                file.write(json.dumps(_row(event)) + "\n")
        names = [f.name for f in fields(Request)]
        with (folder / "requests.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            for request in self.requests:
                writer.writerow([_cell(getattr(request, name)) for name in names])
        write_notices(folder, self.notices)
        (folder / "logs").mkdir(exist_ok=True)
        exchanges = "".join(f"{line}\n" for line in self.exchanges)
        (folder / "logs" / "clients.jsonl").write_text(exchanges, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> History:
        """Read the history from a folder that `save` has written. The exchanges are not read.

        Raises:
            InputError: if the folder is not the folder of a run, or if a file in it is damaged.
        """
        if not (folder / "events.jsonl").is_file():
            raise InputError(f"{folder}: is not the folder of a run: it has no events.jsonl")
        try:
            graph = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
            document = (
                graph["document"] if graph.get("schema") else _as_meant_then(graph["document"])
            )
            spec = read_graph(graph["source"], document, Path(graph["path"]))
            plan = read_plan(
                "plan.txt", (folder / "plan.txt").read_text(encoding="utf-8"), spec.own_steps
            )
            with (folder / "events.jsonl").open(encoding="utf-8") as lines:
                events = [_event(json.loads(line), spec) for line in lines]
            with (folder / "requests.csv").open(encoding="utf-8", newline="") as file:
                requests = [_request(row) for row in csv.DictReader(file)]
            host, notices = Host.from_json(graph["host"]), read_notices(folder)
            return cls(spec, plan, events, requests, host=host, notices=notices)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{folder}: is damaged: {type(error).__name__}: {error}") from None


def _as_meant_then(document: dict[str, Any]) -> dict[str, Any]:
    """The graph file of a run folder without `schema`, in which a value of `in_flight` had another meaning."""
    promises = document.get("promises", {})
    window = promises.get("error_window")
    if not isinstance(window, dict) or "in_flight" not in window:
        return document
    window = window | {"in_flight": as_meant_then(window["in_flight"])}
    return document | {"promises": promises | {"error_window": window}}


def _cell(value: object) -> object:
    return f"{value:.6f}" if isinstance(value, float) else value


def _row(event: Event) -> dict[str, Any]:
    """Return the JSON table of one event for events.jsonl. Replicas and steps are in their text form."""
    row: dict[str, Any] = {"event": type(event).__name__}
    row |= {one.name: getattr(event, one.name) for one in fields(event)}
    if isinstance(event, StepDone):
        # `fault` and `victim` follow from the step. They are written only for people who read the file.
        row |= {"fault": event.fault, "victim": event.victim or ""}
        row["told"] = [(at_s, str(replica)) for at_s, replica in event.told]
    return {name: str(value) if name in _AS_TEXT else value for name, value in row.items()}


def _event(row: dict[str, Any], spec: GraphSpec) -> Event:
    kind = EVENT_KINDS[row.pop("event")]
    if kind is StepDone:
        del row["fault"], row["victim"]
        told = row.pop("told", [])
        row["told"] = tuple((at_s, Replica.parse(replica)) for at_s, replica in told)
    if "step" in row:
        row["step"] = parse_step(row["step"], spec.own_steps)
    for name in _REPLICAS & row.keys():
        row[name] = Replica.parse(row[name])
    return kind(**row)


def _request(row: Mapping[str, str]) -> Request:
    return Request(
        number=int(row["number"]),
        group=Group.parse(row["group"]),
        stream=row["stream"] == "True",
        intended_s=float(row["intended_s"]),
        sent_s=float(row["sent_s"]),
        first_s=float(row["first_s"]),
        last_s=float(row["last_s"]),
        ended_s=float(row["ended_s"]),
        quiet_from_s=float(row["quiet_from_s"]),
        quiet_to_s=float(row["quiet_to_s"]),
        outcome=Outcome.parse(row["outcome"]),
        detail=row["detail"],
        message=row["message"],
        tokens=int(row["tokens"]),
        attempt=int(row.get("attempt", 0)),
        manner=_manner(row),
    )


def _manner(row: Mapping[str, str]) -> MannerKind:
    """The manner of a client. Older folders only say whether its prompt was too long."""
    said = row.get("manner", "asks too much" if row.get("too_long") == "True" else "stays")
    kinds: tuple[MannerKind, ...] = get_args(MannerKind)
    if (found := one_of(said, kinds)) is None:
        raise ValueError(f'found "{said}", expected one of {", ".join(kinds)}')
    return found

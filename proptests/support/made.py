"""Build histories and graph specs for the tests of the pure parts."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graphquake.harness.history.events import (
    BecameReady,
    Died,
    Event,
    Phase,
    PhaseBegan,
    Spawned,
    StepDone,
)
from graphquake.harness.history.history import History
from graphquake.harness.history.host import Host
from graphquake.harness.history.request import (
    Group,
    Outcome,
    Request,
)
from graphquake.harness.promises.judgement import judge
from graphquake.harness.spec.graph import GraphSpec, read_graph
from graphquake.harness.spec.plan import (
    TREE,
    Kill,
    Plan,
    parse_plan,
    parse_step,
)
from graphquake.harness.spec.replica import Replica


def spec_of(**changes: Any) -> GraphSpec:
    """Return a graph with one frontend, one prefill worker and two decode workers. The arguments replace top-level keys."""
    document: dict[str, Any] = {
        "graph": "made",
        "serves": "frontend and prefill and decode",
        "lease_s": 10,
        "roles": {
            "frontend": {"command": "frontend", "entry": "http://127.0.0.1:{port.http}"},
            "prefill": {"command": "prefill"},
            "decode": {"command": "decode", "replicas": 2},
        },
        "load": {"model": "tiny", "rate_per_s": 20},
    }
    return read_graph("made.toml", document | changes, Path("/made.toml"))


def plan_of(*lines: str) -> Plan:
    """Return the plan that these lines describe."""
    return parse_plan("made", lines)


class Made:
    """Builds a history on a clock that starts at 0. Every replica is ready from the beginning.

    The baseline lasts from 0 s to 1 s. The plan begins at 1 s.
    """

    def __init__(self, spec: GraphSpec | None = None, plan: Plan | None = None) -> None:
        self.spec = spec or spec_of()
        self.plan = plan or Plan(())
        self.events: list[Event] = [PhaseBegan(0.0, "baseline"), PhaseBegan(1.0, "plan")]
        self.requests: list[Request] = []
        self._incarnation: dict[Replica, int] = {}
        for replica in self.spec.replicas():
            self.spawn(str(replica), -2.0, ready_s=-1.0)

    def spawn(self, replica: str, at_s: float, *, ready_s: float | None = None) -> Made:
        """Add a new incarnation of a replica. It becomes ready if `ready_s` is given."""
        one = Replica.parse(replica)
        number = self._incarnation.get(one, -1) + 1
        self._incarnation[one] = number
        self.events.append(Spawned(at_s, one, number, 100 + number))
        if ready_s is not None:
            self.events.append(BecameReady(ready_s, one, number))
        return self

    def dies(self, replica: str, at_s: float, *, aimed: bool = False, status: int = -9) -> Made:
        """Add the death of a replica's present incarnation."""
        one = Replica.parse(replica)
        number = self._incarnation[one]
        self.events.append(Died(at_s, one, number, 100 + number, status, aimed))
        return self

    def step(
        self,
        text: str,
        at_s: float,
        *,
        number: int = 0,
        landed: bool = True,
        begun_s: float | None = None,
    ) -> Made:
        """Add the end of a step. A kill that landed also adds the death of its victim."""
        step = parse_step(text)
        self.events.append(
            StepDone(
                at_s,
                at_s if begun_s is None else begun_s,
                number,
                step,
                landed,
                "made",
            )
        )
        if isinstance(step, Kill) and step.scope == TREE and landed:
            self.dies(f"{step.role} {step.index}", at_s, aimed=True)
        return self

    def phase(self, name: Phase, at_s: float) -> Made:
        """Add the beginning of a phase."""
        self.events.append(PhaseBegan(at_s, name))
        return self

    def ask(
        self,
        sent_s: float,
        ended_s: float | None = None,
        outcome: Outcome = Outcome.OK,
        detail: str = "",
        *,
        group: str = "steady",
        quiet: tuple[float, float] | None = None,
        late_s: float = 0.0,
    ) -> Made:
        """Add one request. It ends after 0.1 s unless `ended_s` is given."""
        ended_s = sent_s + 0.1 if ended_s is None else ended_s
        quiet = quiet or (sent_s, ended_s)
        detail = detail or ("HTTP 503" if outcome == Outcome.ERROR else "")
        request = Request(len(self.requests), Group.parse(group), True, sent_s - late_s, sent_s)
        request.first_s = request.last_s = request.ended_s = ended_s
        request.quiet_from_s, request.quiet_to_s = quiet
        request.outcome, request.detail = outcome, detail
        self.requests.append(request)
        return self

    def steady(
        self, begin_s: float, end_s: float, outcome: Outcome = Outcome.OK, every_s: float = 0.05
    ) -> Made:
        """Add steady load from `begin_s` to `end_s`. All requests have the same outcome."""
        count = round((end_s - begin_s) / every_s)
        for number in range(count):
            self.ask(begin_s + number * every_s, outcome=outcome)
        return self

    def history(self) -> History:
        """Return the history with all that was added, the events in order of time."""
        events = sorted(self.events, key=lambda event: event.at_s)
        return History(
            self.spec,
            self.plan,
            events,
            list(self.requests),
            host=Host(began=datetime(2026, 1, 1, tzinfo=UTC)),
        )


def says(made: Made) -> tuple[str, tuple[str, ...]]:
    """Return the verdict's kind and its signatures."""
    verdict = judge(made.history())
    return verdict.kind, tuple(map(str, verdict.signatures))


def healthy(**changes: object) -> Made:
    """Build twelve seconds of steady load with right answers."""
    return Made(spec_of(**changes)).steady(0.0, 12.0)

"""Cases on disk: what was found, shrunk to a minimal plan, with its evidence.

One JSON file a case, named by its id: a digest of graph, promise and minimal plan. It reads well in a review and in a diff: steps are
the same one-line text as everywhere. `observed` grows by a line with each recorded replay, which answers "did the upgrade fix it?".

A case excuses a violation, never a plan (`Case.explains`): a plan that contains a known case is run all the same, and everything else
that it shows is a finding. Files that come from outside are data: damaged ones and newer schemas are an `InputError`, never guessed at.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import StepDone
from graphquake.harness.history.history import History
from graphquake.harness.history.request import ERROR_EVENT
from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Violation
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import HEALS, Aimed, Plan, Step, plan_from_json
from graphquake.harness.spec.table import Table, did_you_mean
from graphquake.machines.plans.subplan import last_act

SCHEMA: Final = 1
Status: TypeAlias = Literal["open", "known", "fixed", "unconfirmed", "unshrunk"]
STATUSES: Final[tuple[Status, ...]] = ("open", "known", "fixed", "unconfirmed", "unshrunk")
# Only these excuse what they explain: a case that counts as fixed is news when it comes back, and one that was never confirmed
# explains nothing.
EXCUSING: Final[tuple[Status, ...]] = ("open", "known", "unshrunk")
# A violation of the same kind may come somewhat later than in the runs that were recorded.
REACH_FACTOR: Final = 1.25
REACH_SLACK_S: Final = 0.5
# Relabelling replicas of a role is tried over all permutations; more than these are never needed for a minimal plan.
RELABELLINGS_MAX: Final = 120


@dataclass(frozen=True, slots=True)
class Observed:
    """One series of fresh runs of a case's plan.

    Attributes:
        on: the day, ISO 8601.
        broke, runs: how many of how many broke the promise in the case's way.
        invalid: how many proved nothing; not among `runs`.
    """

    on: str
    versions: Mapping[str, str]
    host: str
    broke: int
    runs: int
    invalid: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """A minimal plan that breaks a promise, and what is known about it.

    Attributes:
        also: other signatures that the minimal plan itself showed in its own runs.
        reach_s: how long after the plan did the last of what it does its violations began at most, with a margin.
        bounds, load: the graph's bounds and load under which it was seen; a replay uses them.
        needed: step -> what was seen without it.
        numbers: step -> where its numbers begin to matter.
        differs: below rate 1, what separated the broken from the kept runs of the plan.
        any_replica: whether it holds for other replicas of the same roles; None if that was not tried.
    """

    id: str
    title: str
    status: Status
    graph: Mapping[str, str]
    promise: str
    signature: Signature
    plan: Plan
    seen: str
    why: str = ""
    also: tuple[Signature, ...] = ()
    reach_s: float = 0.0
    bounds: Mapping[str, float | str] = field(default_factory=dict)
    load: Mapping[str, float | str] = field(default_factory=dict)
    any_replica: bool | None = None
    needed: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, str] = field(default_factory=dict)
    differs: tuple[str, ...] = ()
    controls: str = ""
    shrunk_from: Mapping[str, float] = field(default_factory=dict)
    observed: tuple[Observed, ...] = ()

    @property
    def broke(self) -> int:
        """How many runs broke it the last time it was observed breaking; the rate to expect of a replay."""
        return next((o.broke for o in reversed(self.observed) if o.broke), 0)

    @property
    def rate(self) -> float:
        """The share of runs that broke it, the last time that any did; 1 if it was never counted."""
        last = next((o for o in reversed(self.observed) if o.broke), None)
        return last.broke / last.runs if last else 1.0

    def is_of(self, spec: GraphSpec) -> bool:
        """Whether this is a case of that graph (by name: graph files change, their cases should survive it)."""
        return self.graph["name"] == spec.name

    def plans(self) -> Iterator[Plan]:
        """The plan, and if it holds for any replica, the plan with the replicas of each role relabelled."""
        yield self.plan
        if self.any_replica:
            yield from relabellings(self.plan)

    def names(self, signature: Signature) -> bool:
        """Whether a signature is the case's own, or one that its minimal plan shows besides."""
        return signature in (self.signature, *self.also)

    def explains(self, violation: Violation, history: History) -> bool:
        """Whether a violation is nothing but this case again.

        It is if it has one of the case's signatures and begins within the case's reach, after an embedding of the case's plan did the
        last of what it does.
        """
        if not self.names(violation.signature):
            return False
        since = (acted_s(plan, history) for plan in self.plans())
        return any(s is not None and 0 <= violation.at_s - s <= self.reach_s for s in since)

    def to_json(self) -> dict[str, Any]:
        """The JSON form, in the order in which one reads it."""
        table = {
            "schema": SCHEMA,
            "id": self.id,
            "title": self.title,
            "status": self.status,
            "why": self.why,
            "graph": dict(self.graph),
            "promise": self.promise,
            "signature": str(self.signature),
            "also": [str(one) for one in self.also],
            "steps": [str(step) for step in self.plan.steps],
            "heal": self.plan.heal,
            "stay_s": self.plan.stay_s,
            "any_replica": self.any_replica,
            "seen": self.seen,
            "reach_s": self.reach_s,
            "needed": dict(self.needed),
            "numbers": dict(self.numbers),
            "differs": list(self.differs),
            "controls": self.controls,
            "bounds": dict(self.bounds),
            "load": dict(self.load),
            "shrunk_from": dict(self.shrunk_from),
            "observed": [asdict(one) for one in self.observed],
        }
        optional = (
            "why",
            "also",
            "any_replica",
            "controls",
            "stay_s",
            "needed",
            "numbers",
            "differs",
        )
        return {
            key: value
            for key, value in table.items()
            if not (key in optional and value in ("", [], {}, None, 0.0) and value is not False)
            and not (key == "heal" and value == "all")
        }


def relabellings(plan: Plan) -> Iterator[Plan]:
    """The same plan with the replicas of each role permuted, beyond those that it names by one; bounded."""
    named: dict[str, set[int]] = {}
    for step in plan.steps:
        if isinstance(step, Aimed):
            named.setdefault(step.role, set()).add(step.index)
    # One replica more than the plan names, so that "kill decode 0" also becomes "kill decode 1"; then two more, …
    pools = {
        role: list(itertools.permutations(range(max(used) + 4), len(used)))
        for role, used in named.items()
    }
    for chosen in itertools.islice(itertools.product(*pools.values()), RELABELLINGS_MAX):
        to = {
            (role, old): new
            for role, news in zip(pools, chosen, strict=True)
            for old, new in zip(sorted(named[role]), news, strict=True)
        }
        yield replace(plan, steps=tuple(_relabelled(step, to) for step in plan.steps))


def _relabelled(step: Step, to: Mapping[tuple[str, int], int]) -> Step:
    if isinstance(step, Aimed):
        return replace(step, index=to[(step.role, step.index)])
    return step


def acted_s(plan: Plan, history: History) -> float | None:
    """When, in a run, the earliest embedding of a plan began to do the last of what it does; None if it never did.

    Not when it was over: a kill does its work from when it begins, and what breaks while a plan's last wait goes on is its doing.
    """
    number = last_act(plan, history.plan)
    return next((step.begun_s for step in history.of(StepDone) if step.number == number), None)


def case_id(graph: str, promise: str, plan: Plan) -> str:
    """Six hex digits that name a case."""
    return hashlib.sha256(f"{graph}\n{promise}\n{plan}".encode()).hexdigest()[:6]


def bounds_of(spec: GraphSpec) -> dict[str, float | str]:
    """The bounds under which a graph's promises are judged, as a case keeps them."""
    names = ("window_s", "in_flight", "stall_s", "first_ok_s", "all_ok_s", "agree_s", "grace_s")
    return {name: getattr(spec.promises, name) for name in names}


def load_of(spec: GraphSpec) -> dict[str, float | str]:
    """The load under which a graph runs, as a case keeps it."""
    closed = _LOAD_CLOSED if spec.load.clients else ()
    return {name: getattr(spec.load, name) for name in (*_LOAD, *_LOAD_WHOLE, *closed)}


def as_in(case: Case, spec: GraphSpec) -> GraphSpec:
    """The graph under the case's own bounds and load."""
    return replace(
        spec,
        promises=replace(spec.promises, **case.bounds),  # type: ignore[arg-type]
        # A case of an open loop says nothing of clients.
        load=replace(spec.load, **({"clients": 0} if case.load else {}) | dict(case.load)),  # type: ignore[arg-type]
    )


def graph_digest(spec: GraphSpec) -> str:
    """Six hex digits that name a graph file's contents."""
    text = json.dumps(spec.document, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


# ------------------------------------------------------------------------------------------------------------- reading

_BOUNDS: Final = ("window_s", "stall_s", "first_ok_s", "all_ok_s", "agree_s", "grace_s")
_LOAD: Final = ("rate_per_s", "stream", "deadline_s")
_LOAD_WHOLE: Final = ("prompt_tokens", "max_tokens", "seed")
_LOAD_CLOSED: Final = ("clients", "requests_per_client", "max_retries")


def read_case(source: str, text: str) -> Case:
    """A case from the text of its file.

    Raises:
        InputError: if it is damaged, or of a newer schema.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{source}: is damaged: no JSON: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"{source}: is damaged: found a {type(data).__name__}, expected a table")
    table = Table(source, data)
    schema = table.whole("schema", at_least=1)
    if schema > SCHEMA:
        raise table.error(
            "schema", f"found {schema}, this graphquake reads up to {SCHEMA}; upgrade it"
        )
    bounds = table.table("bounds")
    in_flight = {"in_flight": bounds.text("in_flight")} if "in_flight" in bounds else {}
    load = table.table("load")
    table.text("heal", "all", choices=HEALS)
    signature, *also = _signatures(table)
    case = Case(
        id=table.text("id"),
        title=table.text("title"),
        status=_status(table),
        graph=table.name_texts("graph"),
        promise=table.text("promise"),
        signature=signature,
        plan=plan_from_json(table),
        seen=table.text("seen"),
        why=table.text("why") if "why" in table else "",
        also=tuple(also),
        reach_s=table.number("reach_s", 0.0),
        bounds=in_flight | {name: bounds.number(name) for name in _BOUNDS if name in bounds},
        load={name: load.number(name) for name in _LOAD if name in load}
        | {name: load.whole(name) for name in (*_LOAD_WHOLE, *_LOAD_CLOSED) if name in load},
        any_replica=table.flag("any_replica", default=False) if "any_replica" in table else None,
        needed=table.name_texts("needed"),
        numbers=table.name_texts("numbers"),
        differs=table.texts("differs"),
        controls=table.text("controls") if "controls" in table else "",
        shrunk_from=_numbers(table.table("shrunk_from")),
        observed=tuple(_observed(row) for row in table.tables("observed")),
    )
    if case.status == "known" and not case.why:
        raise table.error("why", "is missing: a known case says why it is known")
    if "name" not in case.graph:
        raise table.error("graph.name", "is missing")
    bounds.done()
    load.done()
    table.done()
    return case


_FIRST_CLASS: Final = re.compile(r"\d+ × ([^,;]+)")
_EVENT_STATUS: Final = 503


def _signatures(table: Table) -> Iterator[Signature]:
    """The case's own signature, then those that its plan shows besides.

    Older cases have two words that no run is signed by any more. Both are mapped to the family that they stood for:

    - `error event` had no status. It gets the one that the case's other signatures name, else 503: every error event that was ever kept
      in a run's folder has that.
    - `too many` had no class. `seen` begins with the commonest one.
    """
    found = [Signature.parse(text) for text in (table.text("signature"), *table.texts("also"))]
    statuses = {one.what.removeprefix("HTTP ") for one in found if one.what.startswith("HTTP 5")}
    status = statuses.pop() if len(statuses) == 1 else str(_EVENT_STATUS)
    first = _FIRST_CLASS.search(table.text("seen"))
    for one in found:
        if one.what == ERROR_EVENT:
            yield replace(one, what=f"{ERROR_EVENT} {status}")
        elif one.what == "too many" and first is not None:
            yield replace(one, what=first[1])
        else:
            yield one


def _status(table: Table) -> Status:
    word = table.text("status", choices=STATUSES)
    return next(status for status in STATUSES if status == word)


def _numbers(table: Table) -> dict[str, float]:
    return {key: table.number(key) for key in table}


def _observed(table: Table) -> Observed:
    one = Observed(
        on=table.text("on"),
        versions=table.name_texts("versions"),
        host=table.text("host"),
        broke=table.whole("broke"),
        runs=table.whole("runs"),
        invalid=table.whole("invalid", 0),
    )
    if one.broke > one.runs:
        raise table.error("broke", f"found {one.broke}, expected at most its {one.runs} runs")
    table.done()
    return one


class Corpus:
    """The cases in one folder.

    Args:
        folder: where they lie, and where new ones go; it need not exist yet.
        shipped: a folder of cases that came with graphquake; one of the same name in `folder` stands for it.
        only: the name of the one file that is read.

    Raises:
        InputError: if one of them is damaged or of a newer schema.
    """

    def __init__(self, folder: Path, shipped: Path | None = None, *, only: str = "") -> None:
        self.folder = folder
        self._pattern = glob.escape(only) if only else "*.json"
        self._cases: dict[str, Case] = {}
        for path in sorted(shipped.glob("*.json")) if shipped else []:
            self._read(path)
        self.refresh()

    def refresh(self) -> None:
        """Read the folder once more: another process may have kept a case there.

        Raises:
            InputError: as for the corpus.
        """
        for path in sorted(self.folder.glob(self._pattern)):
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return  # Another process has just dropped it.
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: is damaged: {error}") from None
        case = read_case(str(path), text)
        if case.id != path.stem:
            raise InputError(f"{path}: id: found {case.id}, expected the file's name")
        self._cases[case.id] = case

    def __iter__(self) -> Iterator[Case]:
        return iter(tuple(self._cases.values()))

    def of(self, spec: GraphSpec) -> list[Case]:
        """The cases of one graph."""
        return [case for case in self if case.is_of(spec)]

    def get(self, id_: str) -> Case:
        """The case of that id.

        Raises:
            InputError: if there is none.
        """
        if id_ not in self._cases:
            raise InputError(f'{self.folder}: no case "{id_}"{did_you_mean(id_, self._cases)}')
        return self._cases[id_]

    def path(self, case: Case) -> Path:
        """Where a case lies."""
        return self.folder / f"{case.id}.json"

    def drop(self, case: Case) -> None:
        """Another case has taken the place of this one."""
        self.path(case).unlink(missing_ok=True)
        self._cases.pop(case.id, None)

    def keep(self, case: Case) -> Path:
        """Write a case, all of it or nothing, and return where it lies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(case.to_json(), indent=2, ensure_ascii=False) + "\n"
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=self.folder, prefix=".case-", delete=False
        ) as file:
            file.write(text)
        written = Path(file.name)
        written.chmod(0o644)
        written.replace(self.path(case))
        self._cases[case.id] = case
        return self.path(case)

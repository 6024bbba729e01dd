"""What one run does to a graph: the steps, and the plan that they make up.

A plan is data. It is hashable, goes to JSON and back, and reads as one line a step, the same text in every file, picture
and diff. Numbers are held in the units and at the precision that the text shows (10 ms, 5 %), so that text -> plan -> text
loses nothing. Whether a step is *possible* is no question of this file: the model says so before, `faults` while it runs.

Text form (one step a line; a line that starts with # is a remark):

    kill decode 0                         SIGKILL to the replica and all its descendants
    kill decode 0 process                 … to its main process only
    kill decode 0 engine 1                … to the second of its child processes that the graph file calls "engine"
    terminate prefill 0                   SIGTERM to the main process; the step ends when the signal is sent
    stall decode 0 for 2.00 s             SIGSTOP to all of it, SIGCONT so much later; the step ends when all of it is stopped
    respawn decode 0                      start it again; the step ends when there is a new pid
    burst 40 over 0.50 s, 25% leave       40 requests more; a quarter of the clients go after the first token
    wait 0.35 s
    wait until ready                      until every replica that lives is ready and listed
    heal release                          not a step: how the run heals (all, the default; release; none)
    stay 12.00 s                          not a step: how long the run goes on at least after its last fault
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from graphquake.harness.errors import InputError
from graphquake.harness.spec.table import Table, did_you_mean, shown

SCHEMA: Final = 1
# A plan is for minutes of live time, not hours: bounds on what comes from outside.
STEPS_MAX: Final = 200
WAIT_MAX_S: Final = 600.0
BURST_MAX: Final = 100_000

Heal: TypeAlias = Literal["all", "release", "none"]
HEALS: Final[tuple[Heal, ...]] = ("all", "release", "none")

TREE: Final = "tree"
PROCESS: Final = "process"


@dataclass(frozen=True, slots=True, order=True)
class Kill:
    """SIGKILL. The step ends when every process aimed at was seen to be gone.

    Attributes:
        scope: `tree` (the replica and all its descendants), `process` (its main process), or the name that the graph
            file gives to child processes.
        child: which of the children of that name, in the order of their start; 0 unless `scope` is a child's name.
    """

    role: str
    index: int
    scope: str = TREE
    child: int = 0

    def __str__(self) -> str:
        aim = f"kill {self.role} {self.index}"
        if self.scope == TREE:
            return aim
        return f"{aim} {self.scope}" + (f" {self.child}" if self.child else "")


@dataclass(frozen=True, slots=True, order=True)
class Terminate:
    """SIGTERM to the main process. The step ends when the signal is sent: the graph may take its time to drain."""

    role: str
    index: int

    def __str__(self) -> str:
        return f"terminate {self.role} {self.index}"


@dataclass(frozen=True, slots=True, order=True)
class Stall:
    """SIGSTOP to a replica and all its descendants, SIGCONT `for_s` later. The step ends when all of them are stopped.

    The plan goes on meanwhile; it is over when its stalls are. Longer than a lease, and a zombie returns.
    """

    role: str
    index: int
    for_s: float

    def __str__(self) -> str:
        return f"stall {self.role} {self.index} for {self.for_s:.2f} s"


@dataclass(frozen=True, slots=True, order=True)
class Respawn:
    """Start a dead replica again. The step ends when it has a new pid; being ready is another matter."""

    role: str
    index: int

    def __str__(self) -> str:
        return f"respawn {self.role} {self.index}"


@dataclass(frozen=True, slots=True, order=True)
class Burst:
    """Requests on top of the steady load. The step ends when the first of them is sent.

    Attributes:
        requests: how many.
        over_s: the time over which their sending is spread; 0 is all at once.
        leave: the share of clients that go after the first token, 0 to 1.
    """

    requests: int
    over_s: float = 0.0
    leave: float = 0.0

    def __str__(self) -> str:
        left = f", {round(self.leave * 100)}% leave" if self.leave else ""
        return f"burst {self.requests} over {self.over_s:.2f} s{left}"


@dataclass(frozen=True, slots=True, order=True)
class Wait:
    """Let time pass."""

    for_s: float

    def __str__(self) -> str:
        return f"wait {self.for_s:.2f} s"


@dataclass(frozen=True, slots=True, order=True)
class WaitReady:
    """Wait until every replica that lives is ready, and the graph lists just those."""

    def __str__(self) -> str:
        return "wait until ready"


Fault: TypeAlias = Kill | Terminate | Stall
# What is done to one replica.
Aimed: TypeAlias = Fault | Respawn
Step: TypeAlias = Aimed | Burst | Wait | WaitReady
# The verbs of the faults, as plans and graph files spell them.
FAULTS: Final[dict[str, type[Fault]]] = {"kill": Kill, "terminate": Terminate, "stall": Stall}


def is_fault(step: Step) -> bool:
    """Whether a step takes something away from the graph."""
    return isinstance(step, Fault)


@dataclass(frozen=True, slots=True)
class Plan:
    """A finite sequence of steps, and how the run ends after them.

    Attributes:
        steps: in order.
        heal: `all` respawns what is dead; `release` leaves the dead dead, `none` all as it is. A stall ends by itself before.
        stay_s: how long the load goes on at least after the last fault, in seconds; it shows what leases hide until they end.
    """

    steps: tuple[Step, ...]
    heal: Heal = "all"
    stay_s: float = 0.0

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The text form, a line each."""
        lines = [str(step) for step in self.steps]
        if self.heal != "all":
            lines.append(f"heal {self.heal}")
        if self.stay_s:
            lines.append(f"stay {self.stay_s:.2f} s")
        return lines

    def one_line(self) -> str:
        """All of the plan in one line, for a progress display."""
        return "; ".join(self.lines()) or "nothing"

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The steps that take something away."""
        return tuple(step for step in self.steps if isinstance(step, Fault))

    @property
    def disturbs(self) -> bool:
        """Whether it does anything to the graph: a fault, or more load."""
        return any(isinstance(step, Fault | Burst) for step in self.steps)

    @property
    def digest(self) -> str:
        """Twelve hex digits that name this plan."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:12]

    def without_faults(self) -> Plan:
        """The control plan: the same bursts and waits, nothing taken away, so nothing to bring back."""
        kept = tuple(s for s in self.steps if not is_fault(s) and not isinstance(s, Respawn))
        return replace(self, steps=kept)

    def to_json(self) -> dict[str, object]:
        """The JSON form: a table with the text of each step."""
        return {
            "schema": SCHEMA,
            "steps": [str(step) for step in self.steps],
            "heal": self.heal,
            "stay_s": self.stay_s,
        }


def _number(text: str, least: float, most: float, what: str) -> float:
    value = round(float(text), 2)
    if not least <= value <= most:
        raise ValueError(f"found {text}, expected {what} from {least:g} to {most:g}")
    return value


def _kill(found: re.Match[str]) -> Kill:
    scope, child = found["scope"] or TREE, int(found["child"] or 0)
    if child and scope in (TREE, PROCESS):
        raise ValueError(f'"{scope}" takes no index')
    return Kill(found["role"], int(found["index"]), scope, child)


def _burst(found: re.Match[str]) -> Burst:
    requests = int(_number(found["n"], 1, BURST_MAX, "a number of requests"))
    over_s = _number(found["over"], 0, WAIT_MAX_S, "seconds")
    return Burst(requests, over_s, _number(found["leave"] or "0", 0, 100, "a share in %") / 100)


_ROLE: Final = r"(?P<role>[A-Za-z_][\w-]*) (?P<index>\d{1,6})"
_SECONDS: Final = r"\d{1,9}(?:\.\d{1,9})?"
# verb -> (form, how it is written, maker). One table serves parsing and the error messages.
_VERBS: Final[dict[str, tuple[str, str, Callable[[re.Match[str]], Step]]]] = {
    "kill": (
        rf"kill {_ROLE}(?: (?P<scope>[A-Za-z_][\w-]*)(?: (?P<child>\d{{1,6}}))?)?",
        "kill ROLE INDEX [process | CHILD [INDEX]]",
        _kill,
    ),
    "terminate": (
        rf"terminate {_ROLE}",
        "terminate ROLE INDEX",
        lambda m: Terminate(m["role"], int(m["index"])),
    ),
    "stall": (
        rf"stall {_ROLE} for (?P<for>{_SECONDS}) s",
        "stall ROLE INDEX for T s",
        lambda m: Stall(m["role"], int(m["index"]), _number(m["for"], 0.01, WAIT_MAX_S, "seconds")),
    ),
    "respawn": (
        rf"respawn {_ROLE}",
        "respawn ROLE INDEX",
        lambda m: Respawn(m["role"], int(m["index"])),
    ),
    "burst": (
        rf"burst (?P<n>\d{{1,9}}) over (?P<over>{_SECONDS}) s(?:, (?P<leave>\d{{1,3}})% leave)?",
        "burst N over T s[, P% leave]",
        _burst,
    ),
    "wait": (
        rf"wait (?:(?P<ready>until ready)|(?P<for>{_SECONDS}) s)",
        "wait T s | wait until ready",
        lambda m: WaitReady() if m["ready"] else Wait(_number(m["for"], 0, WAIT_MAX_S, "seconds")),
    ),
}
_HEAL: Final = re.compile(r"heal (all|release|none)\Z")
_STAY: Final = re.compile(rf"stay ({_SECONDS}) s\Z")


def parse_step(text: str) -> Step:
    """One step from its line of text.

    Raises:
        ValueError: about what was found and what would be right; the caller knows the file and the place.
    """
    line = " ".join(text.split())
    verb = line.partition(" ")[0]
    if verb not in _VERBS:
        raise ValueError(f"{shown(line)} is no step{did_you_mean(verb, _VERBS)}")
    form, written, make = _VERBS[verb]
    found = re.fullmatch(form, line)
    if not found:
        raise ValueError(f"{shown(line)} is not of the form: {written}")
    return make(found)


def parse_plan(source: str, lines: Iterable[str]) -> Plan:
    """A plan from its text form.

    Args:
        source: what an error message names first (a file name).
        lines: a line each; empty lines and remarks are left out.

    Raises:
        InputError: if a line is no step, or there are too many.
    """
    steps: list[Step] = []
    heal: Heal = "all"
    stay_s = 0.0
    for raw in lines:
        line = " ".join(raw.split())
        if not line or line.startswith("#"):
            continue
        try:
            if found := _HEAL.match(line):
                heal = next(h for h in HEALS if h == found[1])
            elif found := _STAY.match(line):
                stay_s = _number(found[1], 0, WAIT_MAX_S, "seconds")
            else:
                steps.append(parse_step(line))
        except ValueError as error:
            raise InputError(f"{source}: step {len(steps) + 1}: {error}") from None
    if len(steps) > STEPS_MAX:
        raise InputError(f"{source}: found {len(steps)} steps, expected at most {STEPS_MAX}")
    return Plan(tuple(steps), heal, stay_s)


def plan_from_json(table: Table) -> Plan:
    """A plan from its JSON form (also the part of a case that is its plan).

    Raises:
        InputError: as `parse_plan`.
    """
    plan = parse_plan(f"{table.source}: steps", table.texts("steps"))
    heal = table.choice("heal", HEALS, "all")
    return Plan(plan.steps, heal, round(table.number("stay_s", 0.0, at_most=WAIT_MAX_S), 2))


def read_plan(source: str, text: str) -> Plan:
    """A plan from a file's text: JSON if it opens with a brace, else one step a line.

    Raises:
        InputError: if it is neither.
    """
    if not text.lstrip().startswith("{"):
        return parse_plan(source, text.splitlines())
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{source}: is no JSON: {error}") from None
    table = Table(source, data)
    schema = table.whole("schema", SCHEMA, at_least=1)
    if schema > SCHEMA:
        raise table.error("schema", f"found {schema}, this graphquake reads up to {SCHEMA}")
    plan = plan_from_json(table)
    table.done()
    return plan

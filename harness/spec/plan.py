"""A plan: the steps of one run, and how the run ends after them.

A plan is data. It is hashable, can be written as JSON, and reads as one line a step. The text is the same in every file, picture and
diff. Numbers have the units and the precision that the text shows (10 ms, 1 %), so that a plan survives its text form without loss.
This file does not decide whether a step is possible: the model does that before a run, the target while it runs.

The text form has one step a line. A line that starts with # is a remark.

    kill decode 0                         SIGKILL to the replica and all its descendants
    kill decode 0 process                 … to its main process only
    kill decode 0 engine 1                … to the second of its child processes that the graph file calls "engine"
    terminate prefill 0                   SIGTERM to the main process. The step ends when the signal is sent
    stall decode 0 for 2.00 s             SIGSTOP to all of it, SIGCONT 2 s later. The step ends when all of it is stopped
    respawn decode 0                      start it again. The step ends when it has a new pid
    burst 40 over 0.50 s, 25% leave       40 requests more. A quarter of the clients leave after the first token
    wait 0.35 s
    wait until ready                      until every replica that lives is ready and listed
    heal release                          not a step: dead replicas stay dead (all: heal starts them again, the default)
    stay 12.00 s                          not a step: the least time that the load goes on after the last fault

Each kind of step is a file in `steps`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from graphquake.harness.errors import InputError
from graphquake.harness.spec.scope import PROCESS, TREE, Child, Scope
from graphquake.harness.spec.steps.burst import Burst
from graphquake.harness.spec.steps.kill import Kill
from graphquake.harness.spec.steps.kind import SECONDS, WAIT_MAX_S, Aimed, Step, disturbs, number
from graphquake.harness.spec.steps.respawn import Respawn
from graphquake.harness.spec.steps.stall import Stall
from graphquake.harness.spec.steps.table import fault_verbs, parse_step
from graphquake.harness.spec.steps.terminate import Terminate
from graphquake.harness.spec.steps.wait import Wait, WaitReady
from graphquake.harness.spec.table import Table

__all__ = [
    "PROCESS",
    "TREE",
    "Aimed",
    "Burst",
    "Child",
    "Heal",
    "Kill",
    "Plan",
    "Respawn",
    "Scope",
    "Stall",
    "Step",
    "Terminate",
    "Wait",
    "WaitReady",
    "fault_verbs",
    "parse_plan",
    "parse_step",
    "plan_from_json",
    "read_heal",
    "read_plan",
]

SCHEMA: Final = 1
# A plan is for minutes of live time, not hours. These bounds hold for plans that come from outside.
STEPS_MAX: Final = 200

Heal: TypeAlias = Literal["all", "release"]
# Files may still say "none". It has always meant the same as "release".
_HEALS: Final[dict[str, Heal]] = {"all": "all", "release": "release", "none": "release"}


@dataclass(frozen=True, slots=True)
class Plan:
    """A finite sequence of steps, and how the run ends after them.

    Attributes:
        steps: the steps, in order.
        heal: `all` brings back the dead replicas after the plan, `release` leaves them dead. Both undo the steps that still act on the
            graph.
        stay_s: the least time that the load goes on after the last fault, in seconds. It shows the failures that leases hide until they
            end.
    """

    steps: tuple[Step, ...]
    heal: Heal = "all"
    stay_s: float = 0.0
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        # Plans are keys of nearly every table of the shrinker, and a shrink looks them up a million times.
        object.__setattr__(self, "_hash", hash((self.steps, self.heal, self.stay_s)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Plan], tuple[tuple[Step, ...], Heal, float]]:
        # Hashes of texts differ between processes, so each process computes its own.
        return Plan, (self.steps, self.heal, self.stay_s)

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
        """The whole plan in one line, for a progress display."""
        return "; ".join(self.lines()) or "nothing"

    @property
    def faults(self) -> tuple[Step, ...]:
        """The steps that take something away."""
        return tuple(step for step in self.steps if step.is_fault)

    @property
    def disturbs(self) -> bool:
        """True if the plan has a fault or a burst."""
        return any(map(disturbs, self.steps))

    def without_faults(self) -> Plan:
        """The control plan: the same bursts and waits. Without faults, no replica has to be brought back."""
        left = tuple(step for step in self.steps if not step.is_fault and not step.repairs)
        return replace(self, steps=left)

    def with_step(self, place: int, step: Step) -> Plan:
        """The plan with another step at that place."""
        return replace(self, steps=(*self.steps[:place], step, *self.steps[place + 1 :]))

    def to_json(self) -> dict[str, object]:
        """The JSON form: a table with the text of each step."""
        return {
            "schema": SCHEMA,
            "steps": [str(step) for step in self.steps],
            "heal": self.heal,
            "stay_s": self.stay_s,
        }


_HEAL: Final = re.compile(r"heal (all|release|none)\Z")
_STAY: Final = re.compile(rf"stay ({SECONDS}) s\Z")


def parse_plan(source: str, lines: Iterable[str]) -> Plan:
    """A plan from its text form.

    Args:
        source: the start of every error message (a file name).
        lines: one step each. Empty lines and remarks are skipped.

    Raises:
        InputError: if a line is not a step, or there are too many.
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
                heal = _HEALS[found[1]]
            elif found := _STAY.match(line):
                stay_s = number(found[1], 0, WAIT_MAX_S, "seconds")
            else:
                steps.append(parse_step(line))
        except ValueError as error:
            raise InputError(f"{source}: step {len(steps) + 1}: {error}") from None
    if len(steps) > STEPS_MAX:
        raise InputError(f"{source}: found {len(steps)} steps, expected at most {STEPS_MAX}")
    return Plan(tuple(steps), heal, stay_s)


def read_heal(table: Table) -> Heal:
    """The value of `heal` in a table.

    Raises:
        InputError: if it is not a way to heal.
    """
    return _HEALS[table.choice("heal", tuple(_HEALS), "all")]


def plan_from_json(table: Table) -> Plan:
    """A plan from its JSON form, also from the part of a case that is its plan.

    Raises:
        InputError: as `parse_plan`.
    """
    plan = parse_plan(f"{table.source}: steps", table.texts("steps"))
    stay_s = round(table.number("stay_s", 0.0, at_most=WAIT_MAX_S), 2)
    return Plan(plan.steps, read_heal(table), stay_s)


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
        raise InputError(f"{source}: is not valid JSON: {error}") from None
    table = Table(source, data)
    schema = table.whole("schema", SCHEMA, at_least=1)
    if schema > SCHEMA:
        raise table.error("schema", f"found {schema}, this graphquake reads up to {SCHEMA}")
    plan = plan_from_json(table)
    table.done()
    return plan

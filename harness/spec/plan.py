"""A plan: the steps of one run, and the end of the run after them.

A plan is data. It is hashable, and has a JSON form and a text form. The text form is the same in every file, picture and diff.
A plan holds numbers at the precision of its text form (10 ms, 1 %). So a plan that is written and read again is the same plan.
This file does not decide whether a step is possible. The model decides that before a run, and the target decides it during a run.

The text form has one step a line. A line that starts with # is a remark.

    kill decode 0                         SIGKILL to the replica and all its descendants
    kill decode 0 process                 SIGKILL to its main process only
    kill decode 0 engine 1                SIGKILL to the second of its child processes that the graph file calls "engine"
    terminate prefill 0                   SIGTERM to the main process. The step ends when the signal is sent
    interrupt prefill 0                   SIGINT to the main process. The step ends when the signal is sent
    stall decode 0 for 2.00 s             SIGSTOP to all its processes, SIGCONT 2 s later. The step ends when all are stopped
    stall decode 0 engine for 2.00 s      SIGSTOP to one child only, SIGCONT 2 s later. The other processes run on
    bounce decode 0 after 10 ms           SIGKILL to all its processes, and a start 10 ms after their end
    crash decode 0 3 times                a crash loop: it dies, and its next two incarnations die as soon as they run
    roll decode                           SIGTERM, end, start, ready: one replica of the role after the other
    roll decode as new                    the same, with another command of the graph file
    squeeze decode 0 cpu to 20% for 4.00 s           its processes get a fifth of one core for 4 s
    squeeze decode 0 memory to 64 MiB more for 4.00 s    they may allocate 64 MiB more
    squeeze decode 0 disk for 4.00 s      its private disk, with HOME and TMPDIR, is full
    hog decode 0 gpu compute for 4.00 s   a process beside it keeps its GPU busy
    hog decode 0 gpu memory to 256 MiB free for 4.00 s    a process beside it takes the memory of its GPU
    squeeze decode 0 files for 4.00 s     they may open no further file or socket
    respawn decode 0                      start the replica again. The step ends when the replica has a new pid
    burst 40 over 0.50 s, 25% leave       40 requests more. A quarter of the clients leave after the first token
    burst 9 over 1.00 s, 50% refused      9 requests more. The prompts of a half are too long, so the graph must refuse them
    burst 20 over 0.00 s, 50% leave at token 8   half of the clients leave after the eighth token
    burst 20 over 0.00 s, 25% malformed   a quarter of the requests are malformed, so the graph must refuse them
    wait 0.35 s                           let time pass
    wait until ready                      wait until every replica that lives is ready and listed
    wait until 8 in flight                wait until the clients have at least 8 requests in flight
    wait until a first token              wait until the next first token of an answer arrives
    wait until decode 0 starts            wait until a new incarnation of the replica was spawned
    wait until decode 0 logs "loaded"     wait until a new line of its log holds the text
    heal release                          not a step: dead replicas stay dead. By default (heal all), heal starts them again
    stay 12.00 s                          not a step: the least time that the load goes on after the last fault

Each kind of step is a file in `steps`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from graphquake.harness.errors import InputError
from graphquake.harness.spec.steps.kind import SECONDS, WAIT_MAX_S, Aimed, Step, disturbs, number
from graphquake.harness.spec.steps.load.burst import Burst
from graphquake.harness.spec.steps.own.own import Own
from graphquake.harness.spec.steps.own.own_table import OwnStep
from graphquake.harness.spec.steps.processes.kill import Kill
from graphquake.harness.spec.steps.processes.respawn import Respawn
from graphquake.harness.spec.steps.processes.stall import Stall
from graphquake.harness.spec.steps.processes.terminate import Terminate
from graphquake.harness.spec.steps.scope import PROCESS, TREE, Child, Scope
from graphquake.harness.spec.steps.table import NO_OWN, default_faults, parse_step
from graphquake.harness.spec.steps.waits.first_token import UntilFirstToken
from graphquake.harness.spec.steps.waits.in_flight import UntilInFlight
from graphquake.harness.spec.steps.waits.logs import UntilLogs
from graphquake.harness.spec.steps.waits.starts import UntilStarts
from graphquake.harness.spec.steps.waits.until import Until
from graphquake.harness.spec.steps.waits.wait import Wait, WaitReady
from graphquake.harness.spec.table import Table

__all__ = [
    "PROCESS",
    "TREE",
    "Aimed",
    "Burst",
    "Child",
    "Heal",
    "Kill",
    "Own",
    "Plan",
    "Respawn",
    "Scope",
    "Stall",
    "Step",
    "Terminate",
    "Until",
    "UntilFirstToken",
    "UntilInFlight",
    "UntilLogs",
    "UntilStarts",
    "Wait",
    "WaitReady",
    "default_faults",
    "parse_plan",
    "parse_step",
    "plan_from_json",
    "read_heal",
    "read_plan",
]

SCHEMA: Final = 1
# A run takes minutes, not hours. This bound holds for plans that a user or a file gives.
STEPS_MAX: Final = 200

Heal: TypeAlias = Literal["all", "release"]
# Older files may say "none". The word means the same as "release".
_HEALS: Final[dict[str, Heal]] = {"all": "all", "release": "release", "none": "release"}


@dataclass(frozen=True, slots=True)
class Plan:
    """A finite sequence of steps, and the end of the run after them.

    Attributes:
        steps: the steps, in order.
        heal: `all` starts the dead replicas again after the plan. `release` leaves them dead. Both undo the steps that still act on the
            graph, such as a stall.
        stay_s: the least time that the load goes on after the last fault, in seconds. If it is longer than a lease, the run also records
            the failures that begin when the lease of a dead replica ends.
    """

    steps: tuple[Step, ...]
    heal: Heal = "all"
    stay_s: float = 0.0
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        # Plans are keys of nearly every table of the shrinker. One shrink looks up plans a million times, so the hash is computed once.
        object.__setattr__(self, "_hash", hash((self.steps, self.heal, self.stay_s)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Plan], tuple[tuple[Step, ...], Heal, float]]:
        # The hash of a text differs between processes, so each process computes the hash of its copy of the plan.
        return Plan, (self.steps, self.heal, self.stay_s)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The lines of the text form: one for each step, and one each for `heal` and `stay_s` if they are not the default."""
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
        """The steps that are faults, in order."""
        return tuple(step for step in self.steps if step.is_fault)

    @property
    def disturbs(self) -> bool:
        """True if the plan has a fault or a burst."""
        return any(map(disturbs, self.steps))

    @property
    def adds_load(self) -> bool:
        """True if the plan has a burst."""
        return any(step.adds_load for step in self.steps)

    def without_faults(self) -> Plan:
        """Return the control plan: this plan without its faults, its respawns and the user's own steps. Its bursts and waits stay.

        The faults may bring about the events that the plan waits for. So a plain wait stands in place of each wait for an event.
        """
        left = [one for one in self.steps if not (one.is_fault or one.repairs or one.is_own)]
        steps = (Wait(one.plain_s) if one.plain_s else one for one in left)
        return replace(self, steps=tuple(steps))

    def with_step(self, place: int, step: Step) -> Plan:
        """Return the plan with the step at `place` (from 0) replaced by another step."""
        return replace(self, steps=(*self.steps[:place], step, *self.steps[place + 1 :]))

    def to_json(self) -> dict[str, object]:
        """Return the JSON form of the plan: a table in which each step is a text."""
        return {
            "schema": SCHEMA,
            "steps": [str(step) for step in self.steps],
            "heal": self.heal,
            "stay_s": self.stay_s,
        }


_HEAL: Final = re.compile(r"heal (all|release|none)\Z")
_STAY: Final = re.compile(rf"stay ({SECONDS}) s\Z")


def parse_plan(source: str, lines: Iterable[str], own: Mapping[str, OwnStep] = NO_OWN) -> Plan:
    """Return the plan that a text form describes.

    Args:
        source: the start of every error message, usually a file name.
        lines: each line is one step, `heal` or `stay`. Empty lines and remarks are skipped.
        own: the definitions of the user's own steps, by their names.

    Raises:
        InputError: if a line is none of these, or if the plan has more than `STEPS_MAX` steps.
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
                steps.append(parse_step(line, own))
        except ValueError as error:
            raise InputError(f"{source}: step {len(steps) + 1}: {error}") from None
    if len(steps) > STEPS_MAX:
        raise InputError(f"{source}: found {len(steps)} steps, expected at most {STEPS_MAX}")
    return Plan(tuple(steps), heal, stay_s)


def read_heal(table: Table) -> Heal:
    """Return the value of the key `heal` in a table. If the key is absent, return `all`.

    Raises:
        InputError: if the value is not one of `_HEALS`.
    """
    return _HEALS[table.choice("heal", tuple(_HEALS), "all")]


def plan_from_json(table: Table, own: Mapping[str, OwnStep] = NO_OWN) -> Plan:
    """Return the plan that a JSON table describes: the JSON form of a plan, or a case, which holds the same keys.

    Raises:
        InputError: if a key has a wrong value, or if `parse_plan` raises one.
    """
    plan = parse_plan(f"{table.source}: steps", table.texts("steps"), own)
    stay_s = round(table.number("stay_s", 0.0, at_most=WAIT_MAX_S), 2)
    return Plan(plan.steps, read_heal(table), stay_s)


def read_plan(source: str, text: str, own: Mapping[str, OwnStep] = NO_OWN) -> Plan:
    """Return the plan that the text of a file describes: JSON if the text begins with a brace, else the text form.

    Args:
        source: the start of every error message, usually a file name.
        text: the text of the file.
        own: the definitions of the user's own steps, by their names.

    Raises:
        InputError: if the text is not a plan.
    """
    if not text.lstrip().startswith("{"):
        return parse_plan(source, text.splitlines(), own)
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{source}: is not valid JSON: {error}") from None
    table = Table(source, data)
    schema = table.whole("schema", SCHEMA, at_least=1)
    if schema > SCHEMA:
        raise table.error("schema", f"found {schema}, this graphquake reads up to {SCHEMA}")
    plan = plan_from_json(table, own)
    table.done()
    return plan

"""The list of all kinds of steps. A kind that is not in this list is neither read from plans nor drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from graphquake.harness.spec.steps.kind import Rule, Step
from graphquake.harness.spec.steps.load.burst import Burst
from graphquake.harness.spec.steps.own.own import parse_own
from graphquake.harness.spec.steps.own.own_table import OwnStep
from graphquake.harness.spec.steps.processes.kill import Kill
from graphquake.harness.spec.steps.processes.respawn import Respawn
from graphquake.harness.spec.steps.processes.stall import Stall
from graphquake.harness.spec.steps.processes.terminate import Terminate
from graphquake.harness.spec.steps.waits.wait import Wait, WaitReady
from graphquake.harness.spec.table import did_you_mean, shown

KINDS: Final[list[type[Step]]] = [Kill, Terminate, Stall, Respawn, Burst, Wait, WaitReady]

NO_OWN: Final[Mapping[str, OwnStep]] = MappingProxyType({})


def verbs() -> tuple[str, ...]:
    """Return the verbs of all kinds."""
    return tuple(dict.fromkeys(kind.verb for kind in KINDS))


def fault_verbs() -> tuple[str, ...]:
    """Return the verb of each kind of fault, as plans and graph files spell it, e.g. `kill`."""
    return tuple(dict.fromkeys(kind.verb for kind in KINDS if kind.is_fault))


def rules() -> list[tuple[type[Step], Rule]]:
    """Return every rule by which steps are drawn, as (kind of step, rule)."""
    return [(kind, rule) for kind in KINDS for rule in kind.rules()]


def parse_step(text: str, own: Mapping[str, OwnStep] = NO_OWN) -> Step:
    """Return the step that one line of text describes, e.g. `kill decode 0`.

    Args:
        text: the line.
        own: the definitions of the user's own steps, by their names.

    Raises:
        ValueError: if the text is not a step. The message names the text that was found and the correct form. The caller adds the file
            and the number of the step.
    """
    line = " ".join(text.split())
    verb = line.partition(" ")[0]
    if verb in own:
        return parse_own(own[verb], line)
    kinds = [kind for kind in KINDS if kind.verb == verb]
    if not kinds:
        near = did_you_mean(verb, [*verbs(), *own])
        raise ValueError(f"{shown(line)} is not a step{near}")
    for kind in kinds:
        if found := re.fullmatch(kind.pattern, line):
            return kind.parse(found)
    forms = " | ".join(kind.form for kind in kinds)
    raise ValueError(f"{shown(line)} is not of the form: {forms}")

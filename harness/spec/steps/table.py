"""The list of all kinds of steps. A kind that is not in this list is neither read from plans nor drawn."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
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
from graphquake.harness.spec.steps.waits.first_token import UntilFirstToken
from graphquake.harness.spec.steps.waits.in_flight import UntilInFlight
from graphquake.harness.spec.steps.waits.logs import UntilLogs
from graphquake.harness.spec.steps.waits.starts import UntilStarts
from graphquake.harness.spec.steps.waits.wait import Wait, WaitReady
from graphquake.harness.spec.table import did_you_mean, shown

KINDS: Final[list[type[Step]]] = [
    Kill,
    Terminate,
    Stall,
    Respawn,
    Burst,
    Wait,
    WaitReady,
    UntilInFlight,
    UntilFirstToken,
    UntilStarts,
    UntilLogs,
]

# A text is like a form if this share of both agrees, as `difflib` counts it. With less, the nearest form is a guess.
LIKE: Final = 0.85
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
    forms = [kind.form for kind in kinds]
    raise ValueError(
        f"{shown(line)} is not of the form: {' | '.join(forms)}{_nearest(line, forms)}"
    )


def _nearest(line: str, forms: Sequence[str]) -> str:
    """Return the end of an error message: the form of several that a text is like. Empty if it is like none of them."""
    if len(forms) == 1:
        return ""
    # Written as a form, a text has capital letters in place of its values. The word before a number may be a role.
    texts = [re.sub(r'".*', '"TEXT"', line)]
    texts += [re.sub(r"[\w-]+ \d+", "ROLE INDEX", texts[0]), re.sub(r"\d[\d.]*", "N", texts[0])]
    near = (
        (difflib.SequenceMatcher(None, text, form).ratio(), form)
        for text in texts
        for form in forms
    )
    share, form = max(near)
    return f'; did you mean "{form}"?' if share >= LIKE else ""

"""The list of all kinds of steps. A kind that is not in this list is neither read from plans nor drawn."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from graphquake.harness.spec.steps.cluster.cordon import Cordon
from graphquake.harness.spec.steps.cluster.delete import Delete
from graphquake.harness.spec.steps.cluster.rollout import Rollout
from graphquake.harness.spec.steps.cluster.scale import Scale
from graphquake.harness.spec.steps.cluster.scale_up import ScaleUp
from graphquake.harness.spec.steps.kind import Rule, Step
from graphquake.harness.spec.steps.load.burst import Burst
from graphquake.harness.spec.steps.model import Role
from graphquake.harness.spec.steps.network.cut import Cut, Partition
from graphquake.harness.spec.steps.network.degrade import Delay, Lose, Slow
from graphquake.harness.spec.steps.network.reset import Reset
from graphquake.harness.spec.steps.own.own import parse_own
from graphquake.harness.spec.steps.own.own_table import OwnStep
from graphquake.harness.spec.steps.processes.bounce import Bounce
from graphquake.harness.spec.steps.processes.crash import Crash
from graphquake.harness.spec.steps.processes.interrupt import Interrupt
from graphquake.harness.spec.steps.processes.kill import Kill
from graphquake.harness.spec.steps.processes.respawn import Respawn
from graphquake.harness.spec.steps.processes.roll import Roll
from graphquake.harness.spec.steps.processes.stall import Stall
from graphquake.harness.spec.steps.processes.stall_part import StallPart
from graphquake.harness.spec.steps.processes.terminate import Terminate
from graphquake.harness.spec.steps.resources.squeeze import (
    HogGpuCompute,
    HogGpuMemory,
    SqueezeCpu,
    SqueezeDisk,
    SqueezeFiles,
    SqueezeMemory,
)
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
    StallPart,
    Interrupt,
    Bounce,
    Crash,
    Roll,
    SqueezeCpu,
    SqueezeMemory,
    SqueezeFiles,
    SqueezeDisk,
    HogGpuMemory,
    HogGpuCompute,
    Cut,
    Reset,
    Lose,
    Slow,
    Delay,
    Partition,
    Delete,
    Scale,
    ScaleUp,
    Rollout,
    Cordon,
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
# A step of the user's own can't have these verbs. It may have those of younger kinds: graph files and cases that use them as names of
# their own must still be read. Their definition then wins over the built-in kind.
RESERVED: Final = ("kill", "terminate", "stall", "respawn", "burst", "wait")
# The name of all kinds of fault, in the lists `faults` of a graph file.
ALL: Final = "all"
NO_OWN: Final[Mapping[str, OwnStep]] = MappingProxyType({})


def verbs() -> tuple[str, ...]:
    """Return the verbs of all kinds."""
    return tuple(dict.fromkeys(kind.verb for kind in KINDS))


def titles() -> tuple[str, ...]:
    """Return the title of each kind. The title is the verb, if the kind has no other."""
    return tuple(dict.fromkeys(kind.title or kind.verb for kind in KINDS))


def faults_called(name: str) -> tuple[str, ...]:
    """Return the titles of the kinds of fault that a name means: one title, all titles with this verb, or `all`."""
    faults = {kind.title or kind.verb: kind.verb for kind in KINDS if kind.is_fault}
    if name == ALL:
        return tuple(faults)
    return (name,) if name in faults else tuple(one for one in faults if faults[one] == name)


def fits(title: str, role: Role) -> bool:
    """True if a kind with this title may be possible at a role. Steps of the user's own, which have no kind here, count as possible."""
    kinds = [kind for kind in KINDS if (kind.title or kind.verb) == title]
    return not kinds or any(kind.fits(role) for kind in kinds)


def default_faults() -> tuple[str, ...]:
    """Return the title of each kind of fault that a search draws if the graph file does not say which."""
    faults = (kind for kind in KINDS if kind.is_fault and kind.by_default)
    return tuple(dict.fromkeys(kind.title or kind.verb for kind in faults))


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

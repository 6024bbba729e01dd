"""The table `[steps]` of a graph file: steps of the user's own. Each is a signal to a replica, or commands.

This module reads the definitions. `own` turns them into steps of a plan. A case keeps the definitions of the steps in its plan, so that
its file can be read without the graph file.
"""

from __future__ import annotations

import math
import shlex
import signal
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Final

from graphquake.harness.errors import InputError
from graphquake.harness.spec.table import Table, did_you_mean
from graphquake.harness.spec.templates.words import check_words, parse_word, words_in

# The longest time that a command or a step of the user's own may take, in seconds, as for waits and stalls.
TIME_MAX_S: Final = 600.0
WITHIN_S: Final = 10.0
# These signals are built-in steps, with a stronger proof.
BUILT_IN: Final = {
    "SIGKILL": "kill",
    "SIGTERM": "terminate",
    "SIGSTOP": "stall",
    "SIGCONT": "stall",
}
# Words that plans use for something else.
_TAKEN: Final = ("heal", "stay")
_COMMANDS: Final = ("do", "proof", "undo")
_PID: Final = "{pid}"


@dataclass(frozen=True, slots=True)
class OwnStep:
    """The definition of a step of the user's own.

    Attributes:
        name: the name of the step in plans.
        role: the role of the replica that the step aims at. Empty if the step aims at no replica.
        signal: the name of the signal that the main process of the replica gets. Empty if the step runs commands.
        do: template of the command that carries out the step.
        proof: template of the command whose exit status 0 proves that the step landed. Empty if the exit status of `do` is the proof.
        undo: template of the command that undoes the step. Empty if there is nothing to undo.
        for_s: the time from the landing to `undo`, in seconds, or 0 if heal undoes the step.
        within_s: the time limit of each command, in seconds.
        fault: true if the step takes something away from the graph, so that failures are excused.
    """

    name: str
    role: str = ""
    signal: str = ""
    do: str = ""
    proof: str = ""
    undo: str = ""
    for_s: float = 0.0
    within_s: float = WITHIN_S
    fault: bool = True

    @property
    def lasts_s(self) -> float:
        """The time from the landing to the undo, in seconds. 0 if there is nothing to undo, infinity if only heal undoes the step."""
        if not self.undo:
            return 0.0
        return self.for_s or math.inf

    def commands(self) -> dict[str, str]:
        """The templates of the commands, by their keys in the file. Empty for a signal."""
        return {key: text for key in _COMMANDS if (text := getattr(self, key))}

    def to_table(self) -> dict[str, object]:
        """The table of the step, as in a graph file. Keys with default values are left out."""
        defaults = {one.name: one.default for one in fields(self)}
        return {
            key: value
            for key, value in asdict(self).items()
            if key != "name" and value != defaults[key]
        }


def read_own_steps(
    tables: Mapping[str, Table], taken: Collection[str], roles: Mapping[str, Table] | None
) -> dict[str, OwnStep]:
    """Read the definitions of the user's own steps.

    Args:
        tables: the table of each step by its name.
        taken: the verbs of the built-in steps.
        roles: the tables of the graph's roles. None if the file is a case, which does not know them.

    Raises:
        InputError: if a name is taken, or a table is wrong.
    """
    found = {}
    for name, table in tables.items():
        if name in taken or name in _TAKEN:
            raise _wrong(table, f'"{name}" is a word of the plan language; choose another name')
        found[name] = _read(name, table, roles)
    return found


def _read(name: str, table: Table, roles: Mapping[str, Table] | None) -> OwnStep:
    one = OwnStep(
        name,
        role=table.text("role", "-").removeprefix("-"),
        signal=_signal(table) if "signal" in table else "",
        do=table.text("do") if "do" in table else "",
        proof=table.text("proof") if "proof" in table else "",
        undo=table.text("undo") if "undo" in table else "",
        for_s=round(table.number("for_s", 0.0, at_least=0.01, at_most=TIME_MAX_S), 2),
        within_s=table.number("within_s", WITHIN_S, at_least=0.01, at_most=TIME_MAX_S),
        fault=table.flag("fault", default=True),
    )
    table.done()
    if bool(one.signal) == bool(one.do):
        raise _wrong(table, "needs either a signal or a command do")
    if one.signal and not one.role:
        raise table.error("role", "is missing: a signal goes to the main process of a replica")
    for key in ("proof", "undo", "for_s", "within_s"):
        if one.signal and key in table:
            raise table.error(key, "is for commands, and this step sends a signal")
    if one.for_s and not one.undo:
        raise table.error("for_s", "needs a command undo: without it, nothing ends then")
    if roles is None:
        return one
    if one.role and one.role not in roles:
        raise table.error(
            "role", f'names "{one.role}", which is not a role{did_you_mean(one.role, roles)}'
        )
    for key, template in one.commands().items():
        _check_command(table, key, template, one.role, roles)
    return one


def _wrong(table: Table, said: str) -> InputError:
    return InputError(f"{table.source}: {table.path}: {said}")


def _signal(table: Table) -> str:
    name = table.text("signal")
    known = [one.name for one in signal.Signals]
    if name in BUILT_IN:
        raise table.error("signal", f"found {name}, which is the built-in step {BUILT_IN[name]}")
    if name not in known:
        raise table.error("signal", f'found "{name}", expected a signal{did_you_mean(name, known)}')
    return name


def _check_command(
    table: Table, key: str, template: str, role: str, roles: Mapping[str, Table]
) -> None:
    try:
        parts = shlex.split(template)
    except ValueError as error:
        raise table.error(key, f"is not a command: {error}") from None
    if not role:
        for text in [*words_in(template.replace(_PID, "")), *["pid"] * (_PID in template)]:
            word = parse_word(text)
            if text == "pid" or (
                word
                and not word.role
                and word.what in ("port", "address", "file", "role", "index", "capacity", "host")
            ):
                raise table.error(
                    key, f'has "{{{text}}}", which is about one replica: the step needs a role'
                )
    files = roles[role].table("files") if role else ()
    parts = [part.replace(_PID, "") for part in parts]
    check_words(table, key, template.replace(_PID, ""), roles, files=files, parts=parts)

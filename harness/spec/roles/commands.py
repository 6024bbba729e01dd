"""The commands of a role: the command line of its replicas, and its variants."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

from graphquake.harness.spec.table import Table
from graphquake.harness.spec.templates.words import check_words


def read_command(table: Table, roles: Mapping[str, Table], files: Iterable[str]) -> str:
    """Read the key `command`.

    Args:
        table: the table with the key.
        roles: the tables of all roles, which the command may name.
        files: the names of the files that the command may name.

    Raises:
        InputError: if it can't be split into arguments, or has an unknown word.
    """
    command = table.text("command")
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise table.error("command", f"can't be split as a shell splits it: {error}") from None
    return check_words(table, "command", command, roles, files=files, parts=arguments)


def read_variants(table: Table, roles: Mapping[str, Table], files: Iterable[str]) -> dict[str, str]:
    """Read the table `variants` of a role: other commands by name. The arguments are as for `read_command`."""
    found = {}
    for name, one in table.name_tables("variants").items():
        found[name] = read_command(one, roles, files)
        one.done()
    return found


def check_preload(table: Table, role: str, command: str) -> None:
    """Check that the command of a role with `preload` runs a Python module or script. A forked Python can run nothing else."""
    if not re.match(r"\{python\} (-m\s|[^-])", command):
        begins = 'begins with "{python} -m MODULE" or "{python} SCRIPT"'
        raise table.error(
            "preload", f"needs a command that {begins}; the command of {role} does not"
        )

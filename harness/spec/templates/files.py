"""The table `files` of a role: files that a launch writes for each replica, e.g. the configuration of a proxy.

A value is the template of the file's text, or names a template file beside the graph file. `with_file_texts` puts the text of a template
file into the document, so that the folder of a run has it, and an old run can be read without that file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from graphquake.harness.spec.table import Table
from graphquake.harness.spec.templates.words import check_words

_FILE_NAME: Final = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)*\Z")


def with_file_texts(source: str, document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a graph's document in which each file has its text. `{ template = "NAME" }` is replaced by the text of that file.

    Args:
        source: the beginning of each error message, usually a file name.
        document: the parsed TOML.
        folder: the folder of the graph file.

    Raises:
        InputError: if a template file can't be read.
    """
    found = dict(document)
    for role, table in Table(source, document).name_tables("roles").items():
        files = table.table("files")
        texts = {name: _text(files.table(name), folder) for name in files if _is_table(files, name)}
        if texts:
            changed = {**table.values, "files": {**files.values, **texts}}
            found["roles"] = {**found["roles"], role: changed}
    return found


def _is_table(files: Table, name: str) -> bool:
    return isinstance(files.values[name], dict)


def _text(table: Table, folder: Path) -> str:
    name = table.text("template")
    table.done()
    try:
        return (folder / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise table.error(
            "template", f'found "{name}", expected a text file in {folder}: {why}'
        ) from None


def read_files(table: Table, roles: Mapping[str, Table]) -> dict[str, str]:
    """Read a `files` table: the name of each file -> the template of its text.

    Args:
        table: the table. `with_file_texts` has put the texts of template files into it.
        roles: the tables of the graph's roles by name.

    Raises:
        InputError: if a name or a text is wrong. An error about a word names its line.
    """
    found = {}
    for name in table:
        if not _FILE_NAME.match(name):
            raise table.error(
                name,
                "is not the name of a file: expected letters, digits, . - _ and / between them",
            )
        found[name] = text = table.text(name)
        for number, line in enumerate(text.split("\n"), 1):
            check_words(table, f"{name}: line {number}", line, roles, files=table, parts=[line])
    return found


def render(template: str, lines_of: Callable[[str], list[str]]) -> str:
    """Return the text of a file.

    Args:
        template: the template of the text.
        lines_of: gets a line of the template and returns its lines in the file: one, or one for each replica of a role.
    """
    return "\n".join(line for part in template.split("\n") for line in lines_of(part))

"""Templates of a graph file: texts in which `{word}` and `${NAME}` stand for values.

Graphquake gives the value of `{word}`, e.g. a port. `${NAME}` stands for an environment variable. The reader of a graph file checks the
words. It does not check the environment variables, because a run may be judged on another machine. `environment` checks them before a
launch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Final

from graphquake.harness.spec.table import Table, did_you_mean

_WORD: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\{([^{}]*)\}")
_PLAIN_WORDS: Final = (
    "python", "model", "run_dir", "graph_dir", "entry", "role", "index", "capacity",
)  # fmt: skip


def expand(template: str, value_of: Callable[[str], str]) -> str:
    """Return a template with each `{word}` and each `${NAME}` replaced by its value.

    Args:
        template: the text.
        value_of: gets a word and returns its value.

    Raises:
        KeyError: if an environment variable is not set. `check_environment` reports such a variable earlier.
    """
    return _WORD.sub(lambda m: os.environ[m[1]] if m[1] else value_of(m[2]), template)


def environment_names(template: str) -> list[str]:
    """Return the names of the environment variables in a template, e.g. `HOME` for `${HOME}`."""
    return [name for name, _ in _WORD.findall(template) if name]


def check_words(table: Table, key: str, template: str, roles: Mapping[str, object]) -> str:
    """Check that every `{word}` of a template is known, and return the template.

    Args:
        table: the table that holds the template.
        key: the key of the template in the table.
        template: the text.
        roles: the roles of the graph by name. A template may use a port of a role, as `ROLE.port.NAME`.

    Raises:
        InputError: if a word is not known.
    """
    for environment, word in _WORD.findall(template):
        if environment:
            continue
        head, _, rest = word.partition(".")
        is_own_port = head == "port" and rest.isidentifier()
        is_other_port = head in roles and re.fullmatch(r"port\.[A-Za-z_]\w*", rest)
        if not (word in _PLAIN_WORDS or is_own_port or is_other_port):
            words = [*_PLAIN_WORDS, "port.NAME", "ROLE.port.NAME"]
            raise table.error(key, f'has "{{{word}}}"{did_you_mean(word, words)}')
    return template

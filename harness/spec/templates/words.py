r"""Templates of a graph file: texts in which `{word}` and `${NAME}` stand for values.

Graphquake gives the value of `{word}`, e.g. a port. `${NAME}` stands for an environment variable. The reader of a graph file checks the
words. It does not check the environment variables, because a run may be judged on another machine. `environment` checks them before a
launch.

A text in braces is a word only if it looks like one: letters, digits and `. * / - _`, then perhaps `|` and options. All other braces pass
unchanged, so JSON and blocks of configuration files need no escapes. `{{word}}` passes unchanged, too, and `\{word}` stands for `{word}`.

A word about another role names one replica (`ROLE.0.port.NAME`), all replicas as a list (`ROLE.port.NAME`), or each replica in turn
(`ROLE.*.port.NAME`). The text around a word with `*` is repeated: an argument of a command, or a line of a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from graphquake.harness.spec.table import Table, did_you_mean

PLAIN_WORDS: Final = (
    "python", "model", "run_dir", "graph_dir", "entry", "role", "index", "capacity", "host",
)  # fmt: skip
_NAME: Final = r"[A-Za-z_]\w*"
_SHAPE: Final = r"[A-Za-z_][\w-]*(?:\.[\w.*/-]+)?(?:\|[^{}|\n]*){0,2}"
_WORD: Final = re.compile(
    rf"\$\{{(?P<variable>{_NAME})\}}"
    r"|(?P<doubled>\{\{[^{}\n]*\}\})"
    rf"|\\(?P<literal>\{{{_SHAPE}\}})"
    rf"|(?<!\$)\{{(?P<word>{_SHAPE})\}}"
)
_OF_A_REPLICA: Final = re.compile(
    rf"(?P<named>port|address)\.(?P<name>{_NAME})|(?P<plain>host|index)"
)
_OF_A_ROLE: Final = re.compile(
    rf"(?P<role>[A-Za-z_][\w-]*)\.(?:(?P<index>\d+)\.|(?P<each>\*)\.)?(?P<rest>{_OF_A_REPLICA.pattern})"
)


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a template, without its braces.

    Attributes:
        what: `port`, `address`, `file`, or one of `PLAIN_WORDS`.
        name: the name of the port or of the file. Empty for other words.
        role: the role whose replicas are meant, or an empty text for the replica that the template is filled in for.
        index: the index of the replica that is meant, or None if all replicas of the role are meant.
        each: true if the text around the word is repeated for each replica of the role.
        prefix: the text before each item of a list.
        separator: the text between two items of a list.
    """

    what: str
    name: str = ""
    role: str = ""
    index: int | None = None
    each: bool = False
    prefix: str = ""
    separator: str = ","


def parse_word(text: str) -> Word | None:
    """Return the word that a text in braces stands for, or None if it has none of the known forms. Roles are not looked up."""
    if text in PLAIN_WORDS:
        return Word(text)
    if own := re.fullmatch(rf"(port|address)\.({_NAME})", text):
        return Word(own[1], own[2])
    if text.startswith("file."):
        return Word("file", text.removeprefix("file."))
    head, *options = text.split("|")
    found = _OF_A_ROLE.fullmatch(head)
    if found is None:
        return None
    word = Word(
        found["named"] or found["plain"],
        found["name"] or "",
        found["role"],
        int(found["index"]) if found["index"] else None,
        bool(found["each"]),
    )
    if not options:
        return word
    if word.each or word.index is not None:
        return None  # options are for lists
    return replace(word, prefix=options[0], separator=options[1] if len(options) > 1 else ",")


def expand(template: str, value_of: Callable[[str], str], *, environment: bool = True) -> str:
    """Return a template with each `{word}` and each `${NAME}` replaced by its value.

    Args:
        template: the text.
        value_of: gets the text of a word and returns its value.
        environment: if false, `${NAME}` passes unchanged.

    Raises:
        KeyError: if an environment variable is not set. `check_environment` reports such a variable earlier.
    """

    def value(found: re.Match[str]) -> str:
        if found["word"]:
            return value_of(found["word"])
        if found["variable"] and environment:
            return os.environ[found["variable"]]
        return found["literal"] or found[0]

    return _WORD.sub(value, template)


def words_in(template: str) -> list[str]:
    """Return the texts of all words of a template, without their braces."""
    return [found["word"] for found in _WORD.finditer(template) if found["word"]]


def environment_names(template: str) -> list[str]:
    """Return the names of the environment variables in a template, e.g. `HOME` for `${HOME}`."""
    return [found["variable"] for found in _WORD.finditer(template) if found["variable"]]


def repeated_role(text: str) -> str:
    """Return the role for whose replicas a text is repeated, or an empty text if it is not repeated."""
    words = (parse_word(word) for word in words_in(text))
    return next((word.role for word in words if word and word.each), "")


def check_words(
    table: Table,
    key: str,
    template: str,
    roles: Mapping[str, Table],
    *,
    files: Iterable[str] = (),
    parts: Iterable[str] | None = None,
) -> str:
    """Check that every `{word}` of a template is known, and return the template.

    Args:
        table: the table that holds the template.
        key: the key of the template in the table.
        template: the text.
        roles: the tables of the graph's roles by name. A template may name their replicas.
        files: the names of the files that the template may name as `file.NAME`.
        parts: the parts of the text that `*` repeats: the arguments of a command, or the lines of a file. None if nothing is repeated.

    Raises:
        InputError: if a word is not known, or names a replica that does not exist.
    """
    for text in words_in(template):
        word = parse_word(text)
        known = word and (
            word.role in roles if word.role else word.what != "file" or word.name in files
        )
        if not word or not known:
            near = did_you_mean(text, _candidates(text, roles, files))
            raise table.error(key, f'has "{{{text}}}"{near}')
        _check_replica(table, key, text, word, roles)
        if word.each and parts is None:
            alike = text.replace("*.", "")
            raise table.error(
                key,
                f'has "{{{text}}}", but * repeats an argument of a command or a line of a file; a list is "{{{alike}}}"',
            )
    for part in parts or ():
        _check_part(table, key, part)
    return template


def _check_replica(
    table: Table, key: str, text: str, word: Word, roles: Mapping[str, Table]
) -> None:
    replicas = roles[word.role].values.get("replicas", 1) if word.role else 1
    # A wrong number of replicas is reported where that key is read.
    if word.index is not None and isinstance(replicas, int) and word.index >= replicas:
        there = (
            f"{word.role} 0" if replicas == 1 else f"{word.role} 0 to {word.role} {replicas - 1}"
        )
        raise table.error(key, f'has "{{{text}}}", but the graph has {there}')


def _check_part(table: Table, key: str, part: str) -> None:
    words = (parse_word(text) for text in words_in(part))
    roles = list(dict.fromkeys(word.role for word in words if word and word.each))
    if len(roles) > 1:
        raise table.error(
            key, f'has * for {" and ".join(roles)} in "{part.strip()}", expected one role'
        )


def _candidates(text: str, roles: Iterable[str], files: Iterable[str]) -> Iterator[str]:
    """Yield words that may have been meant: those of the same kind and with the same name as the unknown word."""
    yield from PLAIN_WORDS
    yield from (f"file.{name}" for name in files)
    name = text.partition("|")[0].rpartition(".")[2] if "." in text else "NAME"
    which = re.search(r"\.(\d+|\*)\.", text)
    middle = f"{which[1]}." if which else ""
    options = f"|{text.partition('|')[2]}" if "|" in text else ""
    for kind in ("port", "address"):
        yield f"{kind}.{name}"
        yield from (f"{role}.{middle}{kind}.{name}{options}" for role in roles)
    for kind in ("host", "index"):
        yield from (f"{role}.{middle}{kind}{options}" for role in roles)

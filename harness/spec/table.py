"""Checked access to data from outside: TOML graph files, JSON plans and cases.

A `Table` wraps one parsed table, the name of its file, and its key in the file. Its methods return values and check their types. `done`
reports a key that no method has asked for. Each error is one line: the file, the key, the value that was found, and a correct value.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from graphquake.harness.errors import InputError

_T = TypeVar("_T")
_C = TypeVar("_C", bound=str)
SHOWN_MAX: Final = 60
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message about an unknown word: the nearest known word, or all known words."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; known: {', '.join(names)}" if names else ""


def shown(value: object) -> str:
    """Return a value as an error message shows it: short, with strings in double quotes."""
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[: SHOWN_MAX - 1]}…"


def one_of(value: object, choices: Iterable[_C]) -> _C | None:
    """Return the choice that equals a value, or None if no choice does. The result has the type of the choices, e.g. a Literal."""
    return next((choice for choice in choices if choice == value), None)


class Table:
    """One table of a TOML or JSON file, read key by key.

    A method that returns a value raises an `InputError` if the value is wrong. An absent key without a default is an `InputError`, too.

    Args:
        source: the beginning of each error message, usually a file name.
        values: the parsed table.
        path: the dotted key of the table in its file, e.g. `roles.decode`. Empty for the whole file.
    """

    def __init__(self, source: str, values: Mapping[str, object], path: str = "") -> None:
        self.source = source
        self.path = path
        self.values = values
        self._known: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return self._has(key)

    def __iter__(self) -> Iterator[str]:
        """Iterate over all keys, in the order of the file."""
        return iter(self.values)

    def key_path(self, key: str) -> str:
        """Return the dotted path of a key of this table, e.g. `roles.decode.replicas`."""
        return f"{self.path}.{key}" if self.path else key

    def error(self, key: str, said: str) -> InputError:
        """Return an error about one key of this table.

        Args:
            key: the key.
            said: the end of the message: the value that was found, and a correct value.
        """
        return InputError(f"{self.source}: {self.key_path(key)}: {said}")

    def _wrong(self, key: str, expected: str) -> InputError:
        return self.error(key, f"found {shown(self.values[key])}, expected {expected}")

    def _has(self, key: str) -> bool:
        """True if the table has the key. From now on, `done` counts the key as known."""
        self._known.add(key)
        return key in self.values

    def _take(self, key: str) -> object:
        if not self._has(key):
            raise self.error(key, "is missing")
        return self.values[key]

    def text(self, key: str, default: str | None = None) -> str:
        """Return the value of a key: a string with at least one character that is not white space."""
        if default is not None and not self._has(key):
            return default
        value = self._take(key)
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(key, "a text")
        return value

    def choice(self, key: str, choices: Sequence[_C], default: _C | None = None) -> _C:
        """Return the value of a key: one of the words in `choices`.

        Args:
            key: the key.
            choices: all allowed words, usually the values of a Literal.
            default: the result if the key is absent, or None if the table must have the key.
        """
        if default is not None and not self._has(key):
            return default
        found = one_of(self._take(key), choices)
        if found is None:
            raise self._wrong(key, f"one of {', '.join(choices)}")
        return found

    def number(
        self, key: str, default: float | None = None, *, at_least: float = 0.0, at_most: float = 1e9
    ) -> float:
        """Return the value of a key: a finite number from `at_least` to `at_most`, both included."""
        if default is not None and not self._has(key):
            return default
        value = self._take(key)
        # In Python, true and false are numbers.
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not at_least <= value <= at_most
        ):
            upper = "" if at_most == 1e9 else f" and at most {at_most:g}"  # noqa: PLR2004
            raise self._wrong(key, f"a number of at least {at_least:g}{upper}")
        return float(value)

    def whole(
        self, key: str, default: int | None = None, *, at_least: int = 0, at_most: int = 10**9
    ) -> int:
        """Return the value of a key: a whole number from `at_least` to `at_most`, both included."""
        if default is not None and not self._has(key):
            return default
        value = self._take(key)
        if (
            not isinstance(value, int)
            or isinstance(value, bool)
            or not at_least <= value <= at_most
        ):
            upper = "" if at_most == 10**9 else f" and at most {at_most}"
            raise self._wrong(key, f"a whole number of at least {at_least}{upper}")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Return the value of a key: true or false."""
        if not self._has(key):
            return default
        value = self._take(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return the value of a key: a list of strings. Empty if the key is absent."""
        return tuple(self._list(key, str, "a list of texts"))

    def wholes(self, key: str) -> tuple[int, ...]:
        """Return the value of a key: a list of whole numbers. Empty if the key is absent."""
        return tuple(self._list(key, int, "a list of whole numbers"))

    def _list(self, key: str, kind: type[_T], expected: str) -> list[_T]:
        if not self._has(key):
            return []
        value = self._take(key)
        if not isinstance(value, list):
            raise self._wrong(key, expected)
        items = [item for item in value if isinstance(item, kind) and not isinstance(item, bool)]
        if len(items) != len(value):
            raise self._wrong(key, expected)
        return items

    def table(self, key: str) -> Table:
        """Return the value of a key: a table inside this table. The result is an empty table if the key is absent."""
        if not self._has(key):
            return Table(self.source, {}, self.key_path(key))
        value = self._take(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "a table")
        return Table(self.source, value, self.key_path(key))

    def tables(self, key: str) -> list[Table]:
        """Return the value of a key: a list of tables. Empty if the key is absent."""
        rows = self._list(key, dict, "a list of tables")
        return [
            Table(self.source, row, f"{self.key_path(key)}[{at}]") for at, row in enumerate(rows)
        ]

    def name_tables(self, key: str) -> dict[str, Table]:
        """Return the value of a key: tables by name. A name has only letters, digits, `-` and `_`. Empty if the key is absent."""
        outer = self.table(key)
        found = {}
        for name in outer:
            if not _NAME.match(name):
                raise outer.error(name, "is not a name: expected letters, digits, - and _")
            found[name] = outer.table(name)
        return found

    def name_texts(self, key: str) -> dict[str, str]:
        """Return the value of a key, a table that maps names to texts. Return an empty dict if the key is absent."""
        outer = self.table(key)
        return {name: outer.text(name) for name in outer}

    def is_false(self, key: str) -> bool:
        """True if the value of a key is `false`. In `[promises]`, `false` means that the graph does not make that promise."""
        return self._has(key) and self.values[key] is False

    def done(self) -> None:
        """Raise an `InputError` about the first key of the table that no method has asked for."""
        for key in self.values:
            if key not in self._known:
                raise self.error(key, f"is not a known key{did_you_mean(key, self._known)}")

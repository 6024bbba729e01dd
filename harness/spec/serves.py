"""The `serves` expression of a graph file: the roles that a request needs.

The expression joins role names by `and`, `or` and parentheses. A role name is true if at least one replica of that role is up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from graphquake.harness.spec.table import Table, did_you_mean

_TOKEN: Final = re.compile(r"\s*(?:([()])|([A-Za-z_][\w-]*))")


@dataclass(frozen=True, slots=True)
class Serves:
    """A parsed `serves` expression.

    Attributes:
        text: the text in the graph file.
        any_of: sets of roles. A request can be served if every role of at least one set has a replica up (disjunctive normal form).
    """

    text: str
    any_of: tuple[frozenset[str], ...]

    @property
    def roles(self) -> frozenset[str]:
        """The names of all roles in the expression."""
        return frozenset[str]().union(*self.any_of)

    def holds(self, roles_up: Collection[str]) -> bool:
        """True if a request can be served when the roles in `roles_up` have a replica up, and no other role has one."""
        up = frozenset(roles_up)
        return any(way <= up for way in self.any_of)

    def holds_by(self, is_up: Callable[[str], bool]) -> bool:
        """True if a request can be served. `is_up` gets the name of a role and returns true if a replica of that role is up."""
        return any(all(is_up(role) for role in way) for way in self.any_of)


def parse_serves(text: str, roles: Collection[str]) -> Serves:
    """Parse a `serves` expression.

    Args:
        text: e.g. `frontend and (worker or (prefill and decode))`.
        roles: the names of all roles.

    Raises:
        ValueError: if the text is not a valid expression. The message names the text that was found and a correct one.
    """
    tokens = _tokens(text)
    ways = _either(tokens, roles)
    if tokens:
        raise ValueError(
            f'found "{tokens[0]}" where the expression should end, or continue with and, or'
        )
    minimal = [way for way in ways if not any(other < way for other in ways)]
    return Serves(text, tuple(dict.fromkeys(minimal)))


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        if not found:
            raise ValueError(f'found "{text[at:].strip()[:20]}", expected role names, and, or, ( )')
        tokens.append(found[1] or found[2])
        at = found.end()
    return tokens


def _either(tokens: list[str], roles: Collection[str]) -> list[frozenset[str]]:
    ways = _both(tokens, roles)
    while tokens and tokens[0] == "or":
        tokens.pop(0)
        ways = ways + _both(tokens, roles)
    return ways


def _both(tokens: list[str], roles: Collection[str]) -> list[frozenset[str]]:
    ways = _one(tokens, roles)
    while tokens and tokens[0] == "and":
        tokens.pop(0)
        right = _one(tokens, roles)
        ways = [a | b for a in ways for b in right]
    return ways


def _one(tokens: list[str], roles: Collection[str]) -> list[frozenset[str]]:
    if not tokens:
        raise ValueError("ends where a role name should stand")
    token = tokens.pop(0)
    if token == "(":
        ways = _either(tokens, roles)
        if not tokens or tokens.pop(0) != ")":
            raise ValueError('a ")" is missing')
        return ways
    if token in (")", "and", "or"):
        raise ValueError(f'found "{token}" where a role name should stand')
    if token not in roles:
        raise ValueError(f'names "{token}", which is not a role{did_you_mean(token, roles)}')
    return [frozenset([token])]


def read_serves(top: Table, roles: Collection[str]) -> Serves:
    """Read the key `serves` of a graph file. Without it, a request needs every role.

    Raises:
        InputError: if the expression is wrong.
    """
    try:
        return parse_serves(top.text("serves", " and ".join(roles)), roles)
    except ValueError as error:
        raise top.error("serves", str(error)) from None

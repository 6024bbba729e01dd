"""The scope of a kill: how much of a replica it ends."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias


class Whole(Enum):
    """A scope that ends the replica.

    Attributes:
        TREE: the main process and all its descendants.
        PROCESS: the main process alone.
    """

    TREE = "tree"
    PROCESS = "process"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Child:
    """A child process that the graph file names.

    Attributes:
        name: the name in the table `children` of the role.
        index: the number among the children of that name, in the order of their start, from 0.
    """

    name: str
    index: int = 0

    def __str__(self) -> str:
        return f"{self.name} {self.index}" if self.index else self.name


Scope: TypeAlias = Whole | Child
TREE: Final[Literal[Whole.TREE]] = Whole.TREE
PROCESS: Final[Literal[Whole.PROCESS]] = Whole.PROCESS
# No child may have one of these names.
SCOPE_NAMES: Final = tuple(one.value for one in Whole)


def scope_of(name: str, index: int = 0) -> Scope:
    """The scope that a plan or a draw names: "tree", "process" or a child.

    Raises:
        ValueError: if the name stands for the whole replica and comes with an index.
    """
    if name not in SCOPE_NAMES:
        return Child(name, index)
    if index:
        raise ValueError(f'"{name}" takes no index')
    return Whole(name)

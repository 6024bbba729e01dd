"""The scope of a kill: the processes of a replica that the kill ends."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias


class Whole(Enum):
    """A scope of a kill that includes the main process, so that the replica dies.

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
    """A scope of a kill: one child process of a replica. The graph file gives the names of child processes.

    Attributes:
        name: the name in the table `children` of the role.
        index: the number of the child among the children of the same name, in the order of their start, from 0.
    """

    name: str
    index: int = 0

    def __str__(self) -> str:
        return f"{self.name} {self.index}" if self.index else self.name


Scope: TypeAlias = Whole | Child
TREE: Final[Literal[Whole.TREE]] = Whole.TREE
PROCESS: Final[Literal[Whole.PROCESS]] = Whole.PROCESS
# The graph file must not use these names for child processes.
SCOPE_NAMES: Final = tuple(one.value for one in Whole)


def scope_of(name: str, index: int = 0) -> Scope:
    """Return the scope of a kill for its name: "tree", "process", or the name of a child process.

    Args:
        name: the name in the text of a step, or the drawn name.
        index: the number of the child among the children of the same name, from 0.

    Raises:
        ValueError: if the name is "tree" or "process" and the index is not 0.
    """
    if name not in SCOPE_NAMES:
        return Child(name, index)
    if index:
        raise ValueError(f'"{name}" takes no index')
    return Whole(name)

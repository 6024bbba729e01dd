"""A replica: one instance of a role of the graph.

Code passes replicas as `Replica`, never as text. The text form, `decode 0`, is for files, error messages and reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, order=True)
class Replica:
    """One instance of a role.

    Attributes:
        role: the name of the role in the graph file.
        index: the number of the instance within its role, from 0.
    """

    role: str
    index: int

    def __str__(self) -> str:
        return f"{self.role} {self.index}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form of a replica, e.g. `decode 0`.

        Raises:
            ValueError: if the text is not a role and an index.
        """
        role, _, index = text.rpartition(" ")
        if not role or not index.isdecimal():
            raise ValueError(f'found "{text}", expected a role and an index, e.g. "decode 0"')
        return cls(role, int(index))

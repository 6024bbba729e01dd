"""The notices of a cluster about the pods and workloads of a graph: what `kubectl get events` shows.

They are for people. No promise uses them, so they are not events of the history. On disk they have a file of their own, `notices.jsonl`.
So a run folder can be read whether it has the file or not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

NAME: Final = "notices.jsonl"


@dataclass(frozen=True, slots=True)
class Notice:
    """What a cluster says about one object.

    Attributes:
        at_s: the time in seconds on the run's clock. The cluster's own times have whole seconds.
        about: the object, e.g. `Pod web-5d4f-x1`.
        replica: the replica whose pod it is, e.g. `web 0`. Empty for other objects, and for pods that are in no place.
        reason: the reason in one word, e.g. `Killing`.
        said: the message.
        warns: true if the cluster calls it a warning.
        count: how often it was said so far.
    """

    at_s: float
    about: str
    replica: str
    reason: str
    said: str
    warns: bool = False
    count: int = 1

    def __str__(self) -> str:
        often = f" ({self.count} times)" if self.count > 1 else ""
        of = f" ({self.replica})" if self.replica else ""
        return f"{self.about}{of}: {self.reason}: {self.said}{often}"


def write_notices(folder: Path, notices: Sequence[Notice]) -> None:
    """Write the notices into a run folder, one a line. No file is written if there are none."""
    if notices:
        lines = "".join(f"{json.dumps(asdict(one))}\n" for one in notices)
        (folder / NAME).write_text(lines, encoding="utf-8")


def read_notices(folder: Path) -> list[Notice]:
    """Read the notices of a run folder. Empty if it has none.

    Raises:
        ValueError, TypeError: if the file is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return []
    return [Notice(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]

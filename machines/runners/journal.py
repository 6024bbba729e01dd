"""What a search did, as it did it: one JSON line for each drawn plan and each live run.

The journal is how one sees that the same seed draws the same plans, which plans were not run and why, and what every live run was for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphquake.harness.spec.plan import Plan


class Journal:
    """Writes the journal of one search, and counts what it wrote.

    Args:
        path: the file; None counts only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._file = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8", buffering=1)
        self.drawn: Counter[str] = Counter()
        self.live: Counter[str] = Counter()
        self.live_s = 0.0
        self.causes: Counter[str] = Counter()
        self.plans: list[Plan] = []

    def draw(self, round_: int, plan: Plan, became: str) -> None:
        """A plan was drawn; `became` says what became of it: run, or why it was not."""
        self.drawn[became] += 1
        self.plans.append(plan)
        self._write({"drawn": len(self.plans), "round": round_, "became": became}, plan)

    def run(
        self,
        plan: Plan,
        why: str,
        says: str,
        live_s: float,
        what: str,
        explained: Sequence[str] = (),
        folder: str = "",
    ) -> None:
        """A live run ended.

        Args:
            what: the signatures that no case explains, or the cause of being invalid.
            explained: the ids of the cases that explain the others.
            folder: the name of its folder.
        """
        self.live[says] += 1
        self.live_s += live_s
        if says == "invalid":
            self.causes[what] += 1
        row: dict[str, Any] = {"run": self.live.total(), "why": why, "says": says}
        row |= {"live_s": round(live_s, 2)}
        row |= {"what": what} if what else {}
        row |= {"explained by": list(explained)} if explained else {}
        row |= {"folder": folder} if folder else {}
        self._write(row, plan)

    def _write(self, row: dict[str, Any], plan: Plan) -> None:
        if self._file is not None:
            self._file.write(json.dumps(row | {"plan": plan.lines()}, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

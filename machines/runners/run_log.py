"""The log of one search: every drawn plan and every live run, as JSON lines in `journal.jsonl` and as counts.

The file shows that the same seed draws the same plans, and why a plan was not run. Each live run has its purpose, its place in the order
of starts, the reason for which its plan was chosen (see `Begun`), its length (`live_s`) and the time of its end since the search began
(`at_s`). So the runs can be made again (see `sessions.replay_journal`).

The runs are counted only here: a summary, a progress line and the cost of a finding all read these counts.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.run.noise.contention import BUSY
from graphquake.harness.spec.plan import Plan
from graphquake.harness.targets.target import SLOW_WAY
from graphquake.machines.runners.runner import Begun


class RunLog:
    """Writes the log of one search, and counts its draws and runs.

    Args:
        path: the file. None means that nothing is written.
        goes_on: if true, the runs that the file has are counted, and the file is continued. Otherwise it is overwritten.

    Attributes:
        round: the number of the present round of drawing.
        begun: the number of runs that were begun.
        plans: every drawn plan, in order.
        drawn: "run", or the reason why a plan was not run -> number of drawn plans.
        live: verdict -> number of live runs.
        causes: cause of an invalid run -> number of runs.
        explained: id of a case -> number of runs in which the case explained a violation.
        run_s: the seconds that each live run took, replays included.
        weak: reason -> the number of drawn plans whose run was weak for it (see `machines.findings.weakness`).
        made_good: the number of invalid runs that were repeated at once, with a valid result in the end.
        unserved: replica -> number of valid runs of drawn plans in which it had served nothing when the baseline ended.
        excused: the number of failed requests that kept runs excused.
        excused_runs: the number of kept runs that excused a failed request.
        unneeded: the number of runs that were begun early, and whose results were not needed.
        nodes: node of a cluster -> number of live runs that it made. Empty if all runs were made on this machine.
    """

    def __init__(self, path: Path | None = None, *, goes_on: bool = False) -> None:
        self._file = None
        self._begun_s = time.monotonic()
        self.round = 0
        self.begun = 0
        self.plans: list[Plan] = []
        self.drawn: Counter[str] = Counter()
        self.live: Counter[str] = Counter()
        self.causes: Counter[str] = Counter()
        self.explained: Counter[str] = Counter()
        self.run_s: list[float] = []
        self.weak: Counter[str] = Counter()
        self.made_good = 0
        self.unserved: Counter[str] = Counter()
        self.excused = 0
        self.excused_runs = 0
        self.unneeded = 0
        self.nodes: Counter[str] = Counter()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            if goes_on:
                _drop_torn_line(path)
                self._count_again(path)
            self._file = path.open("a" if goes_on else "w", encoding="utf-8", buffering=1)

    def _count_again(self, path: Path) -> None:
        for row in run_rows(path):
            self.begun = max(self.begun, row.get("begun", 0))
            self._count(
                row["says"],
                row["live_s"],
                row.get("what", ""),
                row.get("explained by", ()),
                row.get("node", ""),
            )

    @property
    def live_s(self) -> float:
        """The sum of the durations of all live runs, in seconds."""
        return sum(self.run_s)

    def draw(self, plan: Plan, became: str) -> None:
        """Log and count a drawn plan. `became` is "run", or the reason why the plan was not run."""
        self.drawn[became] += 1
        self.plans.append(plan)
        self._write({"drawn": len(self.plans), "round": self.round, "became": became}, plan)

    def begin(self) -> int:
        """Count a run that begins, and return its place in the order, from 1."""
        self.begun += 1
        return self.begun

    def run(
        self,
        plan: Plan,
        why: str,
        verdict: Verdict,
        live_s: float,
        what: str,
        explained: Sequence[str] = (),
        folder: str = "",
        node: str = "",
        begun: Begun | None = None,
    ) -> None:
        """Log and count a live run that has ended.

        Args:
            plan: the plan.
            why: the purpose of the run, in a word or two.
            verdict: the verdict of the run.
            live_s: the seconds that the run took, with the start of its graph.
            what: the signatures that no case explains, or the cause of an invalid run.
            explained: the ids of the cases that explain the other violations.
            folder: the name of the run's folder, or empty if there is none.
            node: the node of a cluster that made the run, or empty if it was made on this machine.
            begun: how and why the run was begun, if that is known.
        """
        kind = verdict.kind
        excused = verdict.excused if kind == "kept" else 0
        self.excused += excused
        self.excused_runs += excused > 0
        self._count(kind, live_s, what, explained, node)
        row: dict[str, Any] = {"run": self.live.total(), "why": why}
        row |= {} if begun is None else _begun_row(begun)
        row |= {"says": kind}
        row |= {"live_s": round(live_s, 2), "at_s": round(time.monotonic() - self._begun_s, 2)}
        row |= {"what": what} if what else {}
        row |= {"excused": excused} if excused else {}
        row |= {"explained by": list(explained)} if explained else {}
        row |= {"folder": folder} if folder else {}
        row |= {"node": node} if node else {}
        self._write(row, plan)

    def _count(
        self, kind: str, live_s: float, what: str, explained: Iterable[str], node: str
    ) -> None:
        self.live[kind] += 1
        self.run_s.append(live_s)
        self.explained.update(explained)
        self.nodes.update([node] if node else [])
        if kind == "invalid":
            # The texts about noise have numbers, which differ from run to run.
            self.causes[next(filter(what.startswith, (BUSY, SLOW_WAY)), what)] += 1

    def _write(self, row: dict[str, Any], plan: Plan) -> None:
        if self._file is not None:
            self._file.write(json.dumps(row | {"plan": plan.lines()}, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()


def _begun_row(begun: Begun) -> dict[str, Any]:
    row: dict[str, Any] = {"begun": begun.number, "reason": begun.reason}
    row |= {} if begun.score is None else {"score": float(f"{begun.score:.3g}")}
    row |= {} if begun.price_s is None else {"price_s": round(begun.price_s, 2)}
    return row | {
        "may_reuse": begun.may_reuse,
        "patient": begun.patient,
        "until": begun.until,
    }


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line without an end, so that the next line does not continue it."""
    with suppress(FileNotFoundError):
        text = path.read_bytes()
        if not text.endswith(b"\n"):
            path.write_bytes(text[: text.rfind(b"\n") + 1])


def run_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the live runs of a journal. The last line of a search that was killed may be cut off; it is passed over.

    Args:
        path: the file `journal.jsonl`. If it does not exist, there are no runs.
    """
    with suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                row = json.loads(line)
                if "run" in row:
                    yield row

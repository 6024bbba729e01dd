"""What is left of runs on disk: the folders of findings, and of as many other runs as there is room for.

Every run has a page (see `picture`). What a finding rests on lies where its case is looked for: the run of the minimal plan, and beside it
the one in which it was first seen. All other runs stay until the folder is full; then the oldest kept ones go first.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from graphquake.harness.picture import NAME, write_page
from graphquake.harness.reports.story import story
from graphquake.machines.runners.runner import RunResult

# What the folders of all runs of a graph may take, and what stays of them whatever happens.
ROOM_BYTES: Final = 2 << 30
MINIMAL: Final = "minimal"
ORIGINAL: Final = "original"


def draw(outcome: RunResult, links: Mapping[str, str] | None = None) -> None:
    """Write the page of a run, if it has a folder."""
    if outcome.folder is not None and (outcome.folder / "events.jsonl").is_file():
        write_page(outcome.history, outcome.folder, links)


def move(outcome: RunResult, to: Path) -> RunResult:
    """Put a run's folder there; whatever was there before goes."""
    if outcome.folder is None or not outcome.folder.is_dir():
        return outcome
    shutil.rmtree(to, ignore_errors=True)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(outcome.folder, to)
    return replace(outcome, folder=to)


def tell(outcome: RunResult) -> None:
    """Write down in ten lines what happened in a run."""
    if outcome.folder is not None and outcome.folder.is_dir():
        text = "".join(f"{line}\n" for line in story(outcome.history))
        (outcome.folder / "story.txt").write_text(text, encoding="utf-8")


def file_finding(shown: RunResult, first: RunResult, folder: Path) -> tuple[RunResult, RunResult]:
    """Put away what a finding rests on.

    Args:
        shown: the run of the minimal plan that is shown.
        first: the run in which it was first seen; may be the same.
        folder: of the finding.

    Returns:
        Both, where they lie now.
    """
    same = shown is first
    shown = move(shown, folder / MINIMAL)
    first = shown if same else move(first, folder / ORIGINAL)
    tell(shown)
    others = {} if same else {"the run in which it was first seen": f"../{ORIGINAL}/{NAME}"}
    draw(shown, others)
    if not same:
        draw(first, {"the minimal plan": f"../{MINIMAL}/{NAME}"})
    return shown, first


@dataclass(slots=True)
class RunArchive:
    """The folders of runs, as far as there is room for them.

    Attributes:
        room_bytes: what all of them may take.
        spare_shown: whether those of broken and invalid runs stay all the same.
    """

    room_bytes: int = ROOM_BYTES
    spare_shown: bool = False
    _taken: dict[Path, tuple[int, bool]] = field(default_factory=dict)

    def put(self, outcome: RunResult) -> None:
        """Keep the folder of a run, with its page; the oldest kept runs make room for it, then the oldest of all."""
        if outcome.folder is None or not outcome.folder.is_dir():
            return
        draw(outcome)
        size = sum(path.stat().st_size for path in outcome.folder.rglob("*") if path.is_file())
        self._taken[outcome.folder] = size, outcome.verdict.kind == "kept"
        for kept in (True,) if self.spare_shown else (True, False):
            for folder, (_, was_kept) in list(self._taken.items()):
                if self._size() <= self.room_bytes:
                    return
                if was_kept == kept:
                    shutil.rmtree(folder, ignore_errors=True)
                    del self._taken[folder]

    def _size(self) -> int:
        return sum(size for size, _ in self._taken.values())

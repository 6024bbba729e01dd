"""Keeps the folders of runs on disk: those of findings, and as many others as there is room for.

Every run gets a page (see `picture`). The folder of a finding has the id of its case. It holds the run of the minimal plan, and the run in
which the violation was first seen. All other folders stay as long as there is room. To make room, the oldest folders of runs with the
verdict *kept* are removed first.
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

# The room for the folders of all runs of a graph, in bytes.
ROOM_BYTES: Final = 2 << 30
MINIMAL: Final = "minimal"
ORIGINAL: Final = "original"


def write_run_page(outcome: RunResult, links: Mapping[str, str] | None = None) -> None:
    """Write the page of a run, if the run has a folder.

    Args:
        outcome: the run.
        links: text -> URL of other pages that the page links to.
    """
    if outcome.folder is not None and (outcome.folder / "events.jsonl").is_file():
        write_page(outcome.history, outcome.folder, links)


def move(outcome: RunResult, to: Path) -> RunResult:
    """Move the folder of a run, unless it is there already. An older folder at that place is removed.

    Returns:
        The run, with its new folder.
    """
    if outcome.folder is None or not outcome.folder.is_dir() or outcome.folder == to:
        return outcome
    shutil.rmtree(to, ignore_errors=True)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(outcome.folder, to)
    return replace(outcome, folder=to)


def write_story(outcome: RunResult) -> None:
    """Write the story of a run into its folder, in at most ten lines."""
    if outcome.folder is not None and outcome.folder.is_dir():
        text = "".join(f"{line}\n" for line in story(outcome.history))
        (outcome.folder / "story.txt").write_text(text, encoding="utf-8")


def file_finding(shown: RunResult, first: RunResult, folder: Path) -> tuple[RunResult, RunResult]:
    """Move the runs of a finding into its folder, and write their pages and the story.

    Args:
        shown: the run of the minimal plan that the report shows.
        first: the run in which the violation was first seen. It may be the same run.
        folder: the folder of the finding.

    Returns:
        Both runs, with their new folders.
    """
    same = shown is first
    if same:
        shown = first = move(shown, folder / MINIMAL)
    else:
        # The first run of a held finding lies in the place of the minimal plan's run. So it makes room first.
        first = move(first, folder / ORIGINAL)
        shown = move(shown, folder / MINIMAL)
    write_story(shown)
    others = {} if same else {"the run in which it was first seen": f"../{ORIGINAL}/{NAME}"}
    write_run_page(shown, others)
    if not same:
        write_run_page(first, {"the minimal plan": f"../{MINIMAL}/{NAME}"})
    return shown, first


@dataclass(slots=True)
class RunArchive:
    """Keeps the folders of runs, and removes the oldest ones when the room is used up.

    Attributes:
        room_bytes: the room for all folders together, in bytes.
        spare_shown: if true, the folders of broken and invalid runs are never removed, even if there is no room.
    """

    room_bytes: int = ROOM_BYTES
    spare_shown: bool = False
    _taken: dict[Path, tuple[int, bool]] = field(default_factory=dict)

    def add(self, outcome: RunResult) -> None:
        """Add the folder of a run, and write the page of that run.

        To make room, the oldest folders of runs with the verdict *kept* are removed first, then the oldest of the other folders.
        """
        if outcome.folder is None or not outcome.folder.is_dir():
            return
        write_run_page(outcome)
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

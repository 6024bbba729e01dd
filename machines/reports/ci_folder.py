"""`--report-dir`: what a CI keeps of a session, in one folder that needs nothing else.

Summaries, tables and pages, at the same relative places as in the results folder, so that links between them hold. Logs and lists of
requests stay where they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from graphquake.harness.reports.suite_table import Record, render
from graphquake.machines.reports.summary import GraphSummary, write


def report_search(summaries: Sequence[GraphSummary], results: Path, report: Path) -> None:
    """The summary of searches, their pages, and those of their runs and findings.

    Args:
        results: the results folder.
        report: where to; made if need be.
    """
    write(list(summaries), report)
    for summary in summaries:
        _copy_pages(results, report, [results / summary.folder])
        found = (finding.shown.folder for finding in summary.findings)
        _copy_pages(results, report, [folder.parent for folder in found if folder is not None])


def report_scenarios(records: Sequence[Record], results: Path, report: Path) -> None:
    """The table of scenarios, for programs and for a pull request, and their pages."""
    report.mkdir(parents=True, exist_ok=True)
    (report / "scenarios.json").write_text(render(records, "json") + "\n", encoding="utf-8")
    (report / "scenarios.md").write_text(render(records, "markdown") + "\n", encoding="utf-8")
    _copy_pages(results, report, [Path(record.folder) for record in records])


def _copy_pages(results: Path, report: Path, folders: Iterable[Path]) -> None:
    root = results.resolve()
    for folder in folders:
        for page in sorted(folder.resolve().rglob("*.html")):
            to = report / page.relative_to(root)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(page, to)

"""Copy the reports of a session into one folder that CI can keep (`--chaos-report-dir`, `--report-dir`).

Summaries, tables and pages have the same relative paths as in the results folder, so the links between them still work. Logs and lists
of requests are not copied.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from graphquake.harness.reports.suite_table import Record, render
from graphquake.machines.reports.summary import GraphSummary, write


def report_search(summaries: Sequence[GraphSummary], results: Path, report: Path) -> None:
    """Copy the summary of searches, with the pages of the searches, their runs and their findings.

    Args:
        summaries: the searches.
        results: the results folder.
        report: the folder to copy to. It is made if it does not exist.
    """
    write(list(summaries), report)
    for summary in summaries:
        _copy_pages(results, report, [results / summary.folder])
        found = (finding.shown.folder for finding in summary.findings)
        _copy_pages(results, report, [folder.parent for folder in found if folder is not None])


def report_scenarios(records: Sequence[Record], results: Path, report: Path) -> None:
    """Write the table of scenarios as JSON and Markdown, and copy their pages."""
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

"""The HTML page of a search: the summary, the findings and the runs, with links to the pages of the runs."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from graphquake.harness.picture import NAME
from graphquake.machines.reports.finding_text import finding_text
from graphquake.machines.reports.summary import GraphSummary

INDEX: Final = "index.html"
RUNS: Final = "runs"
_STYLE: Final = """
  body { font: 14px/1.5 system-ui, sans-serif; color: #1f2430; max-width: 1180px; margin: 0 auto; padding: 20px 24px 40px; }
  h1 { font-size: 20px; } h2 { font-size: 15px; margin: 26px 0 6px; }
  pre { font: 12.5px/1.5 ui-monospace, monospace; background: #f6f7f9; padding: 10px 14px; overflow-x: auto; }
  table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: 3px 14px 3px 0; vertical-align: top; }
  th { color: #5c6470; font-weight: normal; } .broken { color: #c53030; } .invalid { color: #8a6d1d; } .kept { color: #2f855a; }
  a { color: #2b5fb3; }
"""


def part_folder(folder: Path, shard: int) -> Path:
    """The folder of one shard's files. The first shard uses the graph's own folder."""
    return folder / f"shard-{shard + 1}" if shard else folder


def write_index(summary: GraphSummary, folder: Path) -> Path:
    """Write the page of one graph's search. The page of a merged summary lists the runs of all shards.

    Args:
        summary: the search.
        folder: its folder, with the journal.

    Returns:
        The path of the page.
    """
    path = folder / INDEX
    path.write_text("\n".join(_page(summary, folder)) + "\n", encoding="utf-8")
    return path


def _journal(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        # The process of that shard ended before its first run.
        return []
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as lines, suppress(json.JSONDecodeError):
        # The last line may be cut off if the process was killed.
        rows.extend(map(json.loads, lines))
    return [row for row in rows if "run" in row]


def _page(summary: GraphSummary, folder: Path) -> Iterator[str]:
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(summary.folder)}</title>'
    yield f"<style>{_STYLE}</style><h1>{_text(summary.folder)}: {_text(summary.verdict_line)}</h1>"
    yield f"<pre>{_text(summary.text())}</pre>"
    if summary.findings:
        yield "<h2>findings</h2>"
    for finding in summary.findings:
        yield f"<pre>{_text(finding_text(finding))}</pre>"
        shown = [("the minimal plan's run", finding.shown.folder)]
        if finding.original.folder != finding.shown.folder:
            shown.append(("the run in which it was first seen", finding.original.folder))
        links = (_link(what, to / NAME, folder) for what, to in shown if to is not None)
        yield f"<p>{' · '.join(links)}</p>"
    for part in (part_folder(folder, shard) for shard in summary.parts):
        yield f"<h2>runs{'' if part == folder else f' of {part.name}'}</h2>{_table(_run_rows(part, folder))}"
    yield "</html>"


def _run_rows(part: Path, folder: Path) -> Iterator[list[str]]:
    yield ["run", "for", "verdict", "seconds", "plan", "what"]
    for row in _journal(part / "journal.jsonl"):
        page = part / RUNS / row["folder"] / NAME if row.get("folder") else None
        number = str(row["run"])
        excused = f", {row['excused']} excused" if row.get("excused") else ""
        says = f'<span class="{_text(row["says"])}">{_text(row["says"])}</span>{excused}'
        yield [
            _link(number, page, folder) if page is not None and page.is_file() else number,
            _text(_why(row)),
            says,
            f"{row['live_s']:.1f}",
            _text("; ".join(row["plan"])),
            _text(_what(row)),
        ]


def _why(row: Mapping[str, Any]) -> str:
    """The purpose of a run, the reason for which its plan was chosen, and what the choice rested on."""
    score, price_s = row.get("score"), row.get("price_s")
    rests = [
        row.get("reason", ""),
        "" if score is None else f"score {score:.3g}",
        "" if price_s is None else f"{price_s:.1f} s expected",
    ]
    return ": ".join(filter(None, (row["why"], ", ".join(filter(None, rests)))))


def _what(row: Mapping[str, Any]) -> str:
    """What a run showed: the signatures that no case explains, and the cases that explain the others."""
    hidden = ", ".join(row.get("explained by", ()))
    parts = [row.get("what", ""), f"explained by case {hidden}" if hidden else ""]
    return "; ".join(filter(None, parts))


def _table(rows: Iterable[list[str]]) -> str:
    lines = []
    for number, cells in enumerate(rows):
        tag = "td" if number else "th"
        lines.append(f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _link(what: str, to: Path, folder: Path) -> str:
    address = os.path.relpath(to, folder)
    return f'<a href="{html.escape(address, quote=True)}">{_text(what)}</a>'


def _text(text: object) -> str:
    return html.escape(str(text))

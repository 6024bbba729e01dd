"""Tests of the reference pages of the docs: their tables agree with the code exactly."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from graphquake.harness import errors
from graphquake.harness.history.events import EVENT_KINDS
from graphquake.harness.history.request import Request
from graphquake.harness.spec.bounds import BUILT_IN_PROMISES
from graphquake.harness.spec.graph import built_in_graphs
from graphquake.machines.frontends.cli import _parser
from graphquake.machines.reports.summary import GraphSummary

from support.option_names import SCENARIOS, pytest_options
from support.pages import DOCS, prose

pytestmark = pytest.mark.simulated


def _cells(page: Path, column: int = 0, *, after: str = "") -> list[str]:
    """The cells of a column of all tables of a page, heads left out."""
    text = prose(page).partition(after)[2] if after else prose(page)
    rows = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [
        re.split(r"(?<!\\)\|", line)[column + 1].strip()
        for table in rows
        for line in table.splitlines()[2:]
    ]


def _codes(cells: list[str]) -> list[str]:
    return [code for cell in cells for code in re.findall(r"`(.+?)`", cell)]


def test_the_page_of_options_has_every_option() -> None:
    """options.md lists the options of the plugin and of each command, and no other ones."""
    page = DOCS / "reference/options.md"
    said = set(re.findall(r"--[a-z][a-z-]*", "\n".join(_cells(page))))
    has = {option for option in pytest_options() if option.startswith("--chaos")}
    has |= {"--hypothesis-seed"} | (pytest_options(SCENARIOS) - pytest_options())
    for action in _commands().values():
        has |= {name for one in action._actions for name in one.option_strings if name[:2] == "--"}
    assert said == has - {"--help"}


def _commands() -> dict[str, Any]:
    (choices,) = [one.choices for one in _parser()._actions if isinstance(one.choices, dict)]
    return dict(choices)


def test_every_option_has_a_help_text() -> None:
    """`--help` explains every option and every argument of each command."""
    silent = [one for made in _commands().values() for one in made._actions if not one.help]
    assert silent == []


def test_the_page_of_options_has_every_command() -> None:
    """options.md has a heading for each command."""
    text = (DOCS / "reference/options.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^### `graphquake ([\w-]+)", text, re.MULTILINE)) == set(_commands())


def test_the_page_of_the_summary_has_every_key() -> None:
    """summary-json.md lists the keys of the file and of each of its tables, in their order."""
    page = DOCS / "reference/summary-json.md"
    said = _codes(_cells(page, after="## A graph"))
    keys = list(GraphSummary("g", 1).to_json())
    assert [key for key in said if "." not in key and "[" not in key] == keys


def test_the_page_of_promises_has_every_promise() -> None:
    """promises.md lists the built-in promises by name."""
    assert _codes(_cells(DOCS / "reference/promises.md", after="## All promises"))[
        : len(BUILT_IN_PROMISES)
    ] == list(BUILT_IN_PROMISES)


def test_the_page_of_exit_codes_has_every_code() -> None:
    """exit-codes.md lists the exit statuses of the commands."""
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    said = {int(cell) for cell in _cells(DOCS / "reference/exit-codes.md") if cell.isdigit()}
    assert said == codes


def test_the_page_of_run_folders_has_every_event() -> None:
    """run-folder.md lists the events by name, and the columns of requests.csv in their order."""
    page = DOCS / "reference/run-folder.md"
    assert set(EVENT_KINDS) <= set(_codes(_cells(page)))
    columns = [field.name for field in dataclasses.fields(Request)]
    said = _codes(_cells(page, after="## requests.csv"))
    assert [word for word in said if word in columns] == columns


def test_the_ready_made_graphs_are_named() -> None:
    """The quickstart names every ready-made graph."""
    assert set(built_in_graphs()) <= set(_codes(_cells(DOCS / "quickstart.md")))

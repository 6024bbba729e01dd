"""The end of a search or a scenario in pytest.

An input error ends the session, a finding fails a test, and a search that proved nothing is an error.

The always-loaded plugin imports this module, so it imports only pytest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest


class Findings(Exception):
    """Raised if a search has new findings, or if the replay of a case fails the session.

    Attributes:
        report: the text of each finding and of each case that failed. The message is the verdict in a line.
    """

    def __init__(self, verdict: str, report: str) -> None:
        super().__init__(verdict)
        self.report = report


class _Place(NamedTuple):
    """The place and the message that pytest shows in its short summary and in JUnit."""

    path: str
    lineno: int
    message: str


class FindingsText:
    """What pytest shows of `Findings`: the verdict on the terminal, where the findings stand already, and the whole report in JUnit.

    Pytest asks the result of a test for these methods, see `pytest.TestReport.longrepr`.
    """

    def __init__(self, found: Findings, path: Path) -> None:
        self._found = found
        self.reprcrash = _Place(str(path), 1, str(found))

    def __str__(self) -> str:
        """The report. A worker of pytest-xdist sends it to the controller."""
        return self._found.report

    def toterminal(self, terminal: Any) -> None:
        """Write the verdict."""
        terminal.line(str(self._found))


class ProvedNothing(Exception):
    """Raised if the runs of a search or of a scenario do not prove anything about the graph."""


def end_session(error: Exception) -> NoReturn:
    """End pytest with exit status 2 and the message of the error, because the user's input is wrong."""
    pytest.exit(str(error), returncode=2)


def lift_timeout(item: pytest.Item) -> None:
    """Switch off pytest-timeout's general limit for a search or a scenario, unless the item has its own `timeout` marker."""
    known = item.config.pluginmanager.has_plugin("timeout")
    if known and item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(0))

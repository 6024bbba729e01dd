"""The end of a search or a scenario in pytest.

An input error ends the session, a finding fails a test, and a search without proof is an error.

The always-loaded plugin imports this module, so it imports only pytest.
"""

from __future__ import annotations

from typing import NoReturn

import pytest


class Findings(Exception):
    """New findings, or cases that failed. The text is the report."""


class ProvedNothing(Exception):
    """A search or a scenario whose runs do not prove anything about the graph."""


def end_session(error: Exception) -> NoReturn:
    """End pytest with status 2 and one line: the user gave something wrong."""
    pytest.exit(str(error), returncode=2)


def lift_timeout(item: pytest.Item) -> None:
    """Keep pytest-timeout's general limit away from an item: its budget, or its plan, limits a live run."""
    known = item.config.pluginmanager.has_plugin("timeout")
    if known and item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(0))

"""The end of a search or a scenario in pytest.

An input error ends the session, a finding fails a test, and a search that proved nothing is an error.

The always-loaded plugin imports this module, so it imports only pytest.
"""

from __future__ import annotations

from typing import NoReturn

import pytest


class Findings(Exception):
    """Raised if a search has new findings, or if the replay of a case fails the session. The message is the report."""


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

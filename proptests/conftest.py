"""Scenarios are run only where their file is asked for: they take an hour on two cores."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["graphquake.scenarios"]

SCENARIOS = Path(__file__).with_name("test_scenarios.py")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The file of the scenarios, unless it is named on the command line."""
    named = (
        Path(config.invocation_params.dir, one.split("::")[0]).resolve() for one in config.args
    )
    return True if collection_path == SCENARIOS and SCENARIOS not in named else None

"""Settings of this test suite. The scenarios run only if their file is named, since they take an hour on two cores."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["graphquake.scenarios"]

SCENARIOS = Path(__file__).with_name("test_scenarios.py")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Register the setting of pytest-timeout if it is not installed. An unknown setting would be an error."""
    if not pluginmanager.has_plugin("timeout"):
        parser.addini("timeout", "seconds for one test (needs pytest-timeout)")


def pytest_configure(config: pytest.Config) -> None:
    """Register our marker, and that of pytest-timeout if it is not installed. An unknown marker would be an error."""
    config.addinivalue_line(
        "markers",
        "simulated: starts no graph and measures no time, so several of these tests may run at once",
    )
    config.addinivalue_line(
        "markers",
        "roomy: starts processes, but its limits leave room: two such tests may run at once",
    )
    if not config.pluginmanager.has_plugin("timeout"):
        config.addinivalue_line("markers", "timeout(seconds): limit for one test (pytest-timeout)")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """`-m` may select none of the tests that were named: `tox -e tests` gives its arguments to two calls of pytest."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and session.config.option.markexpr:
        session.exitstatus = pytest.ExitCode.OK


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore the file of the scenarios unless the command line names it."""
    named = (
        Path(config.invocation_params.dir, one.split("::")[0]).resolve() for one in config.args
    )
    return True if collection_path == SCENARIOS and SCENARIOS not in named else None

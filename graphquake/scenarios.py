"""Dynamo's fault tolerance suite, as a pytest plugin that a project loads explicitly.

    # conftest.py
    pytest_plugins = ["graphquake.scenarios"]

    # test_scenarios.py
    from graphquake.scenarios import test_scenario

The plugin registers options under the suite's own short names (`--graph`, `--clients`, `--respawn`, …). Such names may clash with those of
other plugins, so pytest loads this one only if a project names it. The code is in `graphquake.machines.frontends.scenarios`. The names
below are the hooks that pytest looks for in a plugin, the fixture `scenario_run`, and the test `test_scenario`.
"""

from __future__ import annotations

from graphquake.machines.frontends.scenarios import (
    pytest_addoption,
    pytest_generate_tests,
    pytest_itemcollected,
    pytest_terminal_summary,
    scenario_run,
    test_scenario,
)

__all__ = [
    "pytest_addoption",
    "pytest_generate_tests",
    "pytest_itemcollected",
    "pytest_terminal_summary",
    "scenario_run",
    "test_scenario",
]

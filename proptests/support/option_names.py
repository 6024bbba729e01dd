"""The names of all options that a pytest has, with and without the plugin of the scenarios."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from typing import Final

SCENARIOS: Final = "graphquake.scenarios"


@cache
def pytest_options(*plugins: str) -> frozenset[str]:
    """The options of a pytest with this project, pytest-xdist and some more plugins."""
    loaded = [word for plugin in plugins for word in ("-p", plugin)]
    command = [sys.executable, "-m", "pytest", *loaded, "--help"]
    # In another folder than ours: the conftest.py of these tests loads the scenarios itself.
    text = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout
    return frozenset(re.findall(r"(?<![\w-])(--?[A-Za-z][\w-]*)", text))

"""Run pytest within this process, in the working folder. It starts faster than a child process, but all modules are shared."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import pytest

# The modules that a test writes into its project. Another project may have a module with the same name.
OWN_MODULES: Final = ("mine", "test_own")


def enter(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a project the working folder. At the end of the test, its modules are forgotten."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    for name in OWN_MODULES:
        # Set first, so that the name is removed at the end of the test, too.
        monkeypatch.setitem(sys.modules, name, sys)
        monkeypatch.delitem(sys.modules, name)
    # Without a file of its own, pytest would take the settings of a folder above.
    (project / "pytest.ini").touch()


def run_here(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run pytest in the working folder, see `enter`.

    Returns:
        Its exit status and its output, with one space for all white space.
    """
    capsys.readouterr()
    without = [
        word for plugin in ("cacheprovider", "xdist", "timeout") for word in ("-p", f"no:{plugin}")
    ]
    status = pytest.main([*without, "--capture=no", *arguments])
    return int(status), " ".join("".join(capsys.readouterr()).split())

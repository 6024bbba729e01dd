"""The public names of the package."""

from __future__ import annotations

import subprocess
import sys

import graphquake
from graphquake.harness import promises

HEAVY = ("hypothesis", "aiohttp", "numpy", "psutil", "pytest")


def in_a_fresh_python(code: str) -> list[str]:
    """The lines that a program prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_every_public_name_is_there() -> None:
    """Each name in `graphquake.__all__`, and in that of the promises, can be imported."""
    assert all(getattr(graphquake, name) is not None for name in graphquake.__all__)
    assert all(getattr(promises, name) is not None for name in promises.__all__)
    assert {"chaos", "PlanMachine", "History", "Outcome", "violation_in"} <= set(graphquake.__all__)


def test_importing_the_package_imports_no_heavy_library() -> None:
    """`import graphquake` imports none of the libraries that a replica of the reference graph can do without."""
    code = f"import sys, graphquake; print(*[one for one in {HEAVY!r} if one in sys.modules])"
    assert in_a_fresh_python(code) == [""]


def test_a_name_that_a_promise_needs_imports_no_hypothesis() -> None:
    """The names for promises of a user's own can be used without Hypothesis."""
    code = (
        "import sys\n"
        "from graphquake import Availability, History, Outcome, Request, Stretch, Violation, violation_in\n"
        "print('hypothesis' in sys.modules)"
    )
    assert in_a_fresh_python(code) == ["False"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that is not public is an ordinary AttributeError."""
    assert not hasattr(graphquake, "no_such_name")

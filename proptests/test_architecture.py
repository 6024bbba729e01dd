"""ARCHITECTURE.md: it names every module, and the layers in their order."""

from __future__ import annotations

import ast
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.layers import LAYERS
from support.pages import ROOT, prose

pytestmark = pytest.mark.simulated

FOLDERS = ("harness", "machines", "proptests/support", "proptests/bench", "proptests/realbugs")
PAGE = prose(ROOT / "ARCHITECTURE.md")


def modules() -> Iterator[str]:
    """The modules that hold code: an `__init__.py` may only describe its package."""
    public = (ROOT / "graphquake").glob("*.py")
    for path in [*public, *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))]:
        if path.name != "__init__.py" or _holds_code(path):
            yield str(path.relative_to(ROOT))


def _holds_code(path: Path) -> bool:
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    return any(
        not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
        and not (isinstance(one, ast.ImportFrom) and one.module == "__future__")
        for one in statements
    )


def test_every_module_has_one_line() -> None:
    """Each module with code has exactly one line, and no line is about a module that does not exist."""
    lines = re.findall(r"^- `([^\s*]+\.py)`: (.+)\.$", PAGE, re.MULTILINE)
    assert Counter(name for name, _ in lines) == Counter(modules())
    assert all(text.strip() for _, text in lines)


def test_a_line_stands_under_its_package() -> None:
    """Each line of a module stands under the heading of its folder."""
    for heading, text in re.findall(r"^### `(\S+)/`.*\n((?:(?!^#).*\n)*)", PAGE, re.MULTILINE):
        folders = {str(Path(name).parent) for name in re.findall(r"^- `(\S+)`", text, re.MULTILINE)}
        assert folders == {heading}


def test_the_layers_stand_in_their_order() -> None:
    """The table of layers has the packages in the order that the test of the layers enforces."""
    rows = re.findall(r"^ *\| \d+ \| (.*?) \| (.*?) \|$", PAGE, re.MULTILINE)
    said = [tuple(" ".join(re.findall(r"`(\w+)`", cell)) for cell in row) for row in rows]
    in_order = itertools.zip_longest(LAYERS["harness"], LAYERS["machines"], fillvalue="")
    assert said == list(in_order)

"""The modules of this project that a command of a graph starts, so that an exported script can bring them along.

The workers of some ready-made graphs are modules of this project, around an exact engine. They import few others. All of them are copied
under their own names, so that the command stays the same.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PROJECT: Final = "graphquake"
_MODULE: Final = re.compile(rf"-m ({PROJECT}[\w.]*)")


def copy_modules(commands: str, folder: Path) -> None:
    """Copy the modules that commands start with `-m`, and all modules of this project that these import.

    Args:
        commands: the commands.
        folder: the folder that gets the package. It must be on the path of the commands' Python.
    """
    found: dict[str, Path] = {}
    waiting = _MODULE.findall(commands)
    while waiting:
        name = waiting.pop()
        path = _path_of(name)
        if path is None or name in found:
            continue
        found[name] = path
        waiting += _imported(path)
    for name, path in found.items():
        place = folder.joinpath(*name.split("."))
        to = place / path.name if path.name == "__init__.py" else place.with_suffix(".py")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    for one in [folder / PROJECT, *(folder / PROJECT).rglob("*/")] if found else []:
        # Without this file, an installed package would come before the copy.
        (one / "__init__.py").touch()


def _path_of(name: str) -> Path | None:
    """The file of a module, or None if the name is not that of a module. The package itself holds names that the copy does not need."""
    if name == PROJECT:
        return None
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def _imported(path: Path) -> Iterator[str]:
    """The names of this project that a module imports. Some are modules, others are names within modules."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.startswith(f"{PROJECT}."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PROJECT}."):
            yield str(node.module)
            yield from (f"{node.module}.{one.name}" for one in node.names)

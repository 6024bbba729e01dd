"""Import the functions that a graph file names as `module:function`: the oracle and the user's own promises.

A module is looked for beside the graph file first, then where Python looks.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphquake.harness.errors import InputError


def import_function(
    file: Path, key: str, name: str, arguments: tuple[str, ...]
) -> Callable[..., Any]:
    """Import a function of the user.

    Args:
        file: the graph file.
        key: the key of the graph file that names the function, for errors.
        name: `module:function`.
        arguments: the names of the arguments with which it will be called, for errors.

    Raises:
        InputError: if it can't be imported, or can't be called with these arguments.
    """
    where = f"{file.name}: {key}: {name}"
    folder = file.resolve().parent
    module, _, function = name.partition(":")
    beside = folder / f"{module.partition('.')[0]}.py"
    # Only for a module that is there: other modules in that folder must not hide those of the same name elsewhere.
    if (beside.is_file() or beside.with_suffix("").is_dir()) and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        imported = importlib.import_module(module)
        found: object = getattr(imported, function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{where}: {error}; looked in {folder}, then in Python's path") from None
    except Exception as error:  # noqa: BLE001 - the user's module can raise anything
        raise InputError(f"{where}: its import raised {described(error)}") from None
    if beside.is_file() and Path(imported.__file__ or "").resolve() != beside:
        raise InputError(
            f"{where}: found the module {module} of {imported.__file__}, which was imported before {beside}; rename one of them"
        )
    if not callable(found):
        raise InputError(f"{where}: found {type(found).__name__}, expected a function")
    try:
        signature = inspect.signature(found)
    except ValueError:  # A function written in C may not tell its arguments.
        return found
    try:
        signature.bind(*arguments)
    except TypeError:
        raise InputError(
            f"{where}: found the arguments {signature}, expected ({', '.join(arguments)})"
        ) from None
    return found


def described(error: BaseException) -> str:
    """Describe an exception in one line: its type, its text, and the line that raised it. Of a group, the first exception is described."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    return (
        f"{text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else text
    )

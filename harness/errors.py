"""The errors that a user sees, and how they map to the exit status of the commands.

An `InputError` is about the user's input. It names the file, the key, the value that was found and a correct one.
A `GraphError` is about the graph under test: the graph could not be started, was lost, or differs from its file.
A verdict is not an error: verdicts are data (see `promises.verdict`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

EXIT_KEPT = 0
EXIT_BROKEN = 1
EXIT_INPUT = 2
EXIT_PROVED_NOTHING = 3


class GraphquakeError(Exception):
    """Anything that Graphquake reports in one line instead of a traceback."""


class InputError(GraphquakeError):
    """The user's input is wrong: a graph file, a plan, a case, an option."""


class GraphError(GraphquakeError):
    """The graph under test could not be started, gave no right answer, was lost, or differs from its file."""


@contextmanager
def single_error() -> Iterator[None]:
    """Take the first `GraphquakeError` out of an exception group, and raise it alone.

    A task group wraps whatever its tasks raise. A user wants the one line. Other groups pass as they are.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        found = group.subgroup(GraphquakeError)
        if found is None:
            raise
        error: BaseException = found
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None

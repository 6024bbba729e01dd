"""The user's own promises: functions that a graph file names in `promises.extra`.

A promise that raises, or that yields anything but violations, is a mistake in its code. It is never a verdict on the graph.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphquake.harness.errors import InputError
from graphquake.harness.history.history import History
from graphquake.harness.promises.availability import Availability
from graphquake.harness.promises.verdict import Violation
from graphquake.harness.spec.bounds import own_name
from graphquake.harness.spec.functions import described, import_function
from graphquake.harness.spec.graph import GraphSpec


class OwnPromise:
    """A promise of the user, which can be called like a built-in one.

    Args:
        spec: the graph.
        name: `module:function`.

    Raises:
        InputError: if the function can't be imported, or can't be called with a history and its availability.
    """

    def __init__(self, spec: GraphSpec, name: str) -> None:
        self._where = f"{spec.path.name}: promises.extra: {name}"
        self._name = own_name(name)
        self._function = import_function(spec.path, "promises.extra", name, ("history", "up"))
        self.__doc__ = self._function.__doc__

    def __call__(self, history: History, up: Availability) -> Iterable[Violation]:
        """Return the violations that the user's function finds.

        Raises:
            InputError: if it raises an exception, or yields something that is not a violation.
        """
        try:
            found = list(self._function(history, up))
        except Exception as error:  # noqa: BLE001 - the user's function can raise anything
            raise InputError(f"{self._where} raised {described(error)}{_run_of(history)}") from None
        for one in found:
            if not isinstance(one, Violation):
                raise InputError(
                    f"{self._where} yielded {one!r}, expected a Violation: use violation_in{_run_of(history)}"
                )
            if one.promise != self._name:
                raise InputError(
                    f'{self._where} yielded a violation of "{one.promise}", expected "{self._name}", the name of the function'
                )
        return found


def _run_of(history: History) -> str:
    return f', in a run of "{history.plan.one_line()}"'

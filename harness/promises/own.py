"""The user's own promises: functions that a graph file names in `promises.extra`.

A promise that raises, or that yields anything but violations, is a mistake in its code. It is never a verdict on the graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from graphquake.harness.errors import InputError
from graphquake.harness.history.history import History
from graphquake.harness.promises.availability import Availability
from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Violation
from graphquake.harness.spec.bounds import own_name
from graphquake.harness.spec.functions import described, import_function
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.table import shown


class OwnPromiseError(InputError):
    """A promise of the user raised an exception, or yielded something that is not one of its violations.

    Attributes:
        history: the history that the promise was called with. A run saves it, so that the user can call the promise again.
    """

    def __init__(self, text: str, history: History) -> None:
        super().__init__(text)
        self.history = history


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
            OwnPromiseError: if it raises an exception, or yields something that is not a violation.
        """
        try:
            found = list(self._function(history, up))
        except Exception as error:  # noqa: BLE001 - the user's function can raise anything
            wrong = f"raised {described(error)}"
        else:
            wrong = next(filter(None, map(self._mistake_in, found)), "")
        if wrong:
            run_of = f'in a run of "{history.plan.one_line()}"'
            raise OwnPromiseError(f"{self._where} {wrong}, {run_of}", history) from None
        return found

    def _mistake_in(self, one: object) -> str:
        """Describe the mistake in a value that the function yielded. Empty if there is none."""
        if not isinstance(one, Violation) or not isinstance(one.signature, Signature):
            return f"yielded {shown(one)}, expected a Violation: use violation_in"
        if one.promise != self._name:
            return f'yielded a violation of "{one.promise}", expected "{self._name}", the name of the function'
        if not isinstance(one.at_s, int | float) or not math.isfinite(one.at_s):
            return f"yielded a violation with at_s = {shown(one.at_s)}, expected a time in seconds"
        return ""

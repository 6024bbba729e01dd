"""The step `wait until ROLE INDEX logs "TEXT"`: wait until a new line of a replica's log holds a text.

Only lines count that are written after the step began. The step is never drawn, because only the user knows the lines that a replica logs.
The text must be on one line of the log, up to the number of blanks between words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.kind import ROLE
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.harness.spec.steps.waits.until import Until
from graphquake.harness.spec.steps.waits.wait import ready_bound_s


@dataclass(frozen=True, slots=True)
class UntilLogs(Until):
    """Wait until a replica logs a text.

    Attributes:
        role: the role of the replica.
        index: the number of the replica within its role, from 0.
        text: the text, without `"` and `;`. The semicolon separates steps on a command line.
    """

    role: str
    index: int
    text: str

    form: ClassVar[str] = 'wait until ROLE INDEX logs "TEXT"'
    pattern: ClassVar[str] = f'wait until {ROLE} logs "(?P<text>[^";]+)"'
    plain_s: ClassVar[float] = 1.0

    def __str__(self) -> str:
        return f'wait until {self.replica} logs "{self.text}"'

    @classmethod
    def parse(cls, found: re.Match[str]) -> UntilLogs:
        """Return the step that a text form describes. Blanks at both ends of the text are left out."""
        if not (text := found["text"].strip()):
            raise ValueError('found logs " ", expected a text of a log line')
        return cls(found["role"], int(found["index"]), text)

    @property
    def replica(self) -> Replica:
        """The replica whose log is read. The step does not act on it, so it is not one of `aims`."""
        return Replica(self.role, self.index)

    def check(self, model: GraphModel) -> str | None:
        """Return None if the graph has the replica. Otherwise return the reason."""
        return model.unknown(self.replica)

    def possible(self, model: GraphModel) -> str | None:
        """Return the reason why the replica can't log anything now, or None if it can. A dead replica logs if it is started again."""
        if said := self.check(model):
            return said
        if self.replica in model.dead and not model.spec.own_steps:
            return f"{self.replica} does not live any more"
        return None

    async def awaited(self, scene: Scene) -> Landed:
        """Wait until the text is in the log. The time limit is that of a start: a replica logs most of its lines when it starts."""
        within_s = ready_bound_s(scene.target.spec)
        return await scene.target.moments.logged(self.replica, self.text, within_s)

    def moved(self, to: Callable[[Replica], Replica]) -> Self:
        """Return the same wait for the log of the replica that `to` gives for the present one."""
        new = to(self.replica)
        return replace(self, role=new.role, index=new.index)

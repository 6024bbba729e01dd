"""The steps of the user's own, as `[steps.NAME]` in a graph file defines them: a signal to a replica, or commands.

Such a step is drawn, proved, undone and shrunk as the built-in kinds are. A step that is not a fault, e.g. a reload, excuses no failure.

The commands of a run come from the graph file, as those of the roles do. The step itself keeps only what its text says, and whether it is
a fault. So a plan is read with the definitions of its graph file, or with those that its case keeps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Self

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, Scene, landed_now
from graphquake.harness.spec.steps.kind import (
    ROLE,
    SECONDS,
    WAIT_MAX_S,
    Draft,
    Pick,
    Rule,
    Step,
    number,
)
from graphquake.harness.spec.steps.knob import Knob
from graphquake.harness.spec.steps.model import GraphModel
from graphquake.harness.spec.steps.own.own_table import OwnStep
from graphquake.harness.spec.table import did_you_mean, shown

LEAST_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Own(Step):
    """A step of the user's own that is not a fault.

    Attributes:
        verb: the name of the step in the graph file.
        role: the role of the replica that the step aims at. Empty if it aims at none.
        index: the number of that replica within its role, from 0.
        for_s: the time from the landing to the undo, in seconds. 0 if there is nothing to undo, infinity if only heal undoes the step.
    """

    # Each definition is a kind with its own verb, and all of them share this class.
    verb: str  # type: ignore[misc]
    role: str = ""
    index: int = 0
    for_s: float = 0.0

    form: ClassVar[str] = "NAME[ ROLE INDEX][ for T s]"
    pattern: ClassVar[str] = rf"[A-Za-z_][\w-]*(?: {ROLE})?(?: for (?P<for>{SECONDS}) s)?"
    is_own: ClassVar[bool] = True

    def __str__(self) -> str:
        until = f" for {self.for_s:.2f} s" if 0 < self.for_s < math.inf else ""
        return " ".join([self.verb, *map(str, self.aims)]) + until

    @classmethod
    def parse(cls, found: re.Match[str]) -> Step:
        """Not used: the text is read with its definition, see `parse_own`."""
        raise NotImplementedError

    @property
    def lasts_s(self) -> float:
        """The time from the landing to the undo, in seconds."""
        return self.for_s

    @property
    def aims(self) -> tuple[Replica, ...]:
        """The replica that the step aims at, if it aims at one."""
        return (Replica(self.role, self.index),) if self.role else ()

    def check(self, model: GraphModel) -> str | None:
        """Return the reason why the graph file does not allow this step, or None if it does."""
        own = model.spec.own_steps
        if self.verb not in own:
            return f'{model.spec.name} has no step "{self.verb}"{did_you_mean(self.verb, own)}'
        definition = own[self.verb]
        if definition.role != self.role:
            aims = f"a replica of {definition.role}" if definition.role else "no replica"
            return f"{self.verb} aims at {aims}"
        if definition.fault != self.is_fault:
            return (
                f"{self.verb} is {'a' if definition.fault else 'not a'} fault in {model.spec.name}"
            )
        return Step.check(self, model)

    def possible(self, model: GraphModel) -> str | None:
        """Return the reason why the step is impossible now, or None. A step that still acts on the graph can't begin again."""
        if said := Step.possible(self, model):
            return said
        if any(one.verb == self.verb and one.aims == self.aims for one in model.ongoing):
            return "it still acts on the graph"
        return None

    async def run(self, scene: Scene) -> Landed:
        """Send the signal, or run the commands `do` and `proof`. If they fail or are interrupted, run `undo` at once."""
        one = scene.target.spec.own_steps[self.verb]
        aim = next(iter(self.aims), None)
        own = scene.target.own
        if one.signal:
            assert aim is not None
            return await own.signal(aim, one.signal, is_fault=self.is_fault)
        landed = None
        try:
            landed = await own.command(self._key(scene), "do", aim)
            if landed.ok and one.proof:
                landed = await own.command(self._key(scene), "proof", aim)
        finally:
            if landed is None or not landed.ok or not self.lasts_s:
                await self.undo(scene)
        return landed

    async def undo(self, scene: Scene) -> Landed:
        """Run the command `undo`. Then end every process that the commands of this step have left."""
        one = scene.target.spec.own_steps[self.verb]
        own, key = scene.target.own, self._key(scene)
        if one.signal:
            return landed_now("nothing to undo")
        undone = landed_now("nothing to undo")
        try:
            if one.undo:
                undone = await own.command(key, "undo", next(iter(self.aims), None))
        finally:
            await own.end_commands(key)
        return undone

    def _key(self, scene: Scene) -> str:
        return f"step {scene.number + 1} {self.verb}"

    def knobs(self) -> tuple[Knob, ...]:
        """Return one number: the time to the undo, if it is not heal that undoes the step."""
        return (Knob("for_s", 0.01, LEAST_S, is_time=True),) if 0 < self.for_s < math.inf else ()

    def moved(self, to: Callable[[Replica], Replica]) -> Self:
        """Return the same step at the replica that `to` gives for the present one."""
        if not self.role:
            return self
        new = to(Replica(self.role, self.index))
        return replace(self, role=new.role, index=new.index)


@dataclass(frozen=True, slots=True)
class OwnFault(Own):
    """A step of the user's own that takes something away from the graph."""

    is_fault: ClassVar[bool] = True
    prior: ClassVar[float] = 0.40


def step_of(one: OwnStep, replica: Replica | None = None, for_s: float | None = None) -> Own:
    """Return the step of a definition at a replica. Without `for_s`, it lasts as long as the definition says."""
    kind = OwnFault if one.fault else Own
    lasts_s = one.lasts_s if for_s is None else for_s
    if replica is None:
        return kind(one.name, for_s=lasts_s)
    return kind(one.name, replica.role, replica.index, lasts_s)


def form_of(one: OwnStep) -> str:
    """Return the text form of a step, e.g. `squeeze worker INDEX[ for T s]`."""
    return (
        one.name + (f" {one.role} INDEX" if one.role else "") + ("[ for T s]" if one.undo else "")
    )


def parse_own(one: OwnStep, line: str) -> Own:
    """Return the step that one line of text describes, by the definition of its name.

    Raises:
        ValueError: if the text is not of the right form.
    """
    found = re.fullmatch(Own.pattern, line)
    wrong = f"{shown(line)} is not of the form: {form_of(one)}"
    if found is None or bool(found["role"]) != bool(one.role) or (found["for"] and not one.undo):
        raise ValueError(wrong)
    for_s = number(found["for"], 0.01, WAIT_MAX_S, "seconds") if found["for"] else None
    aim = Replica(found["role"], int(found["index"])) if one.role else None
    return step_of(one, aim, for_s)


def own_rules(own: Mapping[str, OwnStep]) -> Iterator[tuple[OwnStep, Rule]]:
    """Yield the rule by which each step of the user's own is drawn."""
    for one in own.values():
        at = _at(one) if one.role else None
        yield one, Rule(f"own_{one.name}", _draw(one), _may(one), at=at, timed=one.fault)


def _at(one: OwnStep) -> Callable[[Replica], Step]:
    return lambda replica: step_of(one, replica)


def _may(one: OwnStep) -> Callable[[Draft], bool]:
    return lambda draft: bool(one.role) or step_of(one).possible(draft.model) is None


def _draw(one: OwnStep) -> Callable[[Draft, Pick], Iterator[Step]]:
    def draw(draft: Draft, pick: Pick) -> Iterator[Step]:
        del draft
        yield step_of(one, pick.replica if one.role else None)

    return draw

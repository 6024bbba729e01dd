"""The step `roll`: upgrade each replica of a role in turn, as a rolling update does.

Each replica gets SIGTERM, ends, is started again, and becomes ready. Then comes the next one. A replica that does not end in its `stop_s`
gets SIGKILL. `as NAME` starts the new incarnations with another command of the graph file, `[roles.ROLE.variants.NAME]`.

The step ends when the last replica is ready, or when one does not become ready: a rolling update stops there, too. Failures are excused
around each SIGTERM, and not for the whole time of the roll. For that, the step tells when each replica was told to end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, Scene
from graphquake.harness.spec.steps.kind import Draft, Effect, Pick, Rule, Step
from graphquake.harness.spec.steps.model import Graph, GraphModel
from graphquake.harness.spec.steps.scope import TREE
from graphquake.harness.spec.steps.waits.wait import ready_bound_s
from graphquake.harness.spec.table import did_you_mean

NAME = r"[A-Za-z_][\w-]*"


@dataclass(frozen=True, slots=True)
class Roll(Step):
    """Terminate and start each replica of a role, one after the other.

    Attributes:
        role: the role.
        variant: the name of the command of the new incarnations. Empty if each replica keeps its command.
    """

    role: str
    variant: str = ""

    verb: ClassVar[str] = "roll"
    form: ClassVar[str] = "roll ROLE[ as NAME]"
    pattern: ClassVar[str] = rf"roll (?P<role>{NAME})(?: as (?P<variant>{NAME}))?"
    is_fault: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"roll {self.role}" + (f" as {self.variant}" if self.variant else "")

    @classmethod
    def parse(cls, found: re.Match[str]) -> Roll:
        """Return the step that a text form describes."""
        return cls(found["role"], found["variant"] or "")

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw a roll of any role whose replicas all live, with its present command or with a variant."""
        return (Rule("roll", _draw, at=lambda one: cls(one.role), seldom=True),)

    @property
    def roles(self) -> tuple[str, ...]:
        """The role, as the only item. The step aims at all its replicas, whose number only the graph knows."""
        return (self.role,)

    def feature(self, graph: Graph) -> str:
        """Return the text of the step."""
        del graph
        return str(self)

    def effect(self, graph: Graph) -> Effect:
        """Return `ends`: each replica takes no new work after its SIGTERM."""
        del graph
        return "ends"

    def check(self, model: GraphModel) -> str | None:
        """Return None if the graph has the role, and the role has the variant. Otherwise return the reason."""
        if said := Step.check(self, model) or model.unknown(Replica(self.role, 0)):
            return said
        variants = model.spec.role(self.role).variants
        if self.variant and self.variant not in variants:
            near = did_you_mean(self.variant, variants)
            return f'{self.role} has no variant "{self.variant}"{near}'
        return None

    def possible(self, model: GraphModel) -> str | None:
        """Return the reason why the step is not possible now: each replica must live, and none may be stalled."""
        if said := self.check(model):
            return said
        every = self._replicas(model.spec)
        return next((said for said in map(model.out_of_reach, every) if said), None)

    def after(self, model: GraphModel) -> GraphModel:
        """Return the model after the roll: every replica lives, and may still be starting."""
        return replace(model, starting=model.starting | {*self._replicas(model.spec)})

    def _replicas(self, graph: Graph) -> list[Replica]:
        return [Replica(self.role, index) for index in range(graph.role(self.role).replicas)]

    async def run(self, scene: Scene) -> Landed:
        """Upgrade one replica after the other. Return when the last one is ready, or when one does not become ready."""
        told: list[tuple[float, Replica]] = []
        said = []
        for one in self._replicas(scene.target.spec):
            landed = await self._upgrade(scene, one, told)
            if not landed.ok:
                return landed
            said.append(landed.proof)
            if landed.missed:
                break
        proof = "; ".join(said)
        # The end of the roll is not a disturbance: each SIGTERM is one.
        return Landed(ok=True, proof=proof, at_s=told[-1][0], told=tuple(told))

    async def _upgrade(
        self, scene: Scene, one: Replica, told: list[tuple[float, Replica]]
    ) -> Landed:
        """Upgrade a replica. The result is `missed` if it has not become ready."""
        target = scene.target
        if self.variant:
            target.use(one, self.variant)
        ended = await target.terminate(one)
        if not ended.ok:
            return ended
        told.append((ended.at_s, one))
        how = ended.proof
        if not await target.gone(one, target.spec.role(one.role).stop_s):
            killed = await target.kill(one, TREE)
            how += f", then {killed.proof}"
        within_s = ready_bound_s(target.spec)
        if target.spec.restart == "always":
            started = await target.moments.started(one, target.spec.restart_delay_s + within_s)
        else:
            started = await target.respawn(one)
        if not started.ok:
            return started
        ready = await target.wait_ready(within_s)
        word = "all ready" if ready else f"not all ready within {within_s:g} s, so the roll stops"
        command = f" as {self.variant}" if self.variant else ""
        proof = f"{one}: {how}, started{command}: {started.proof}, {word}"
        return Landed(ok=True, proof=proof, at_s=started.at_s, missed=not ready)

    def simpler(self, graph: Graph) -> Iterator[Step]:
        """Yield the roll without a variant."""
        del graph
        if self.variant:
            yield Roll(self.role)

    def covers(self, other: Step) -> bool:
        """True if the other step rolls the same role, with the same variant or without one."""
        return (
            isinstance(other, Roll)
            and other.role == self.role
            and other.variant in ("", self.variant)
        )


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    role = pick.replica.role
    variants = draft.model.spec.role(role).variants
    yield Roll(role, pick.one_of(["", *variants]))

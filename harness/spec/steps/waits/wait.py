"""The steps `wait T s` and `wait until ready`: let time pass, or wait until every replica that lives is ready."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from graphquake.harness.spec.steps.actions import Landed, Scene, landed_now
from graphquake.harness.spec.steps.kind import SECONDS, WAIT_MAX_S, Draft, Pick, Rule, Step, number
from graphquake.harness.spec.steps.knob import Knob
from graphquake.harness.spec.steps.model import Graph, GraphModel

# The largest sum of the waits of a drawn plan, in seconds.
PLAN_WAITS_MAX_S: Final = 6.0
# The waits that a draw chooses among, in seconds: log-uniform from 20 ms to 2 s. Some failures need a short wait, as a race does. As many
# need a long wait, as a slow clean-up does.
WAITS_S: Final = (0.02, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.5, 2.0)
# `wait until ready` waits for the largest `within_s` of all roles, and for this time in addition, in seconds.
READY_SLACK_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Wait(Step):
    """Let time pass.

    Attributes:
        for_s: the time to wait, in seconds.
    """

    for_s: float

    verb: ClassVar[str] = "wait"
    form: ClassVar[str] = "wait T s"
    pattern: ClassVar[str] = rf"wait (?P<for>{SECONDS}) s"
    is_wait: ClassVar[bool] = True
    prior: ClassVar[float] = 0.04

    def __str__(self) -> str:
        return f"wait {self.for_s:.2f} s"

    @classmethod
    def parse(cls, found: re.Match[str]) -> Wait:
        """Return the step that a text form describes."""
        return cls(number(found["for"], 0, WAIT_MAX_S, "seconds"))

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw no two waits in a row, and waits of at most `PLAN_WAITS_MAX_S` seconds in one plan."""
        return (Rule("wait", _draw, _may_wait, ahead={"for_s": WAITS_S}),)

    @property
    def waits_s(self) -> float:
        """The time to wait, in seconds."""
        return self.for_s

    def after(self, model: GraphModel) -> GraphModel:
        """Return the model `for_s` seconds later."""
        return model.later(self.for_s)

    async def run(self, scene: Scene) -> Landed:
        """Sleep for `for_s` seconds."""
        del scene
        await asyncio.sleep(self.for_s)
        return landed_now("")

    def knobs(self) -> tuple[Knob, ...]:
        """Return one number: the length of the wait."""
        return (Knob("for_s", 0.01, 0.05, matters=True, is_time=True),)


@dataclass(frozen=True, slots=True)
class WaitReady(Step):
    """Wait until every replica that lives is ready, and the graph lists at least as many replicas as live."""

    verb: ClassVar[str] = "wait"
    form: ClassVar[str] = "wait until ready"
    pattern: ClassVar[str] = "wait until ready"
    is_wait: ClassVar[bool] = True
    prior: ClassVar[float] = 0.04

    def __str__(self) -> str:
        return "wait until ready"

    @classmethod
    def parse(cls, found: re.Match[str]) -> WaitReady:
        """Return the step that a text form describes."""
        del found
        return cls()

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Draw this wait only while a replica comes back (see `_something_comes`), and if the graph may become ready."""
        return (Rule("wait_until_ready", _draw_ready, _may_wait_until_ready),)

    def after(self, model: GraphModel) -> GraphModel:
        """Return the model in which every replica that comes back without heal has come back."""
        return model.settled()

    async def run(self, scene: Scene) -> Landed:
        """Wait until every live replica is ready, or until the time is over. The step lands in both cases: promises judge the graph."""
        within_s = ready_bound_s(scene.target.spec)
        ready = await scene.target.wait_ready(within_s)
        return landed_now("all ready" if ready else f"not ready within {within_s:g} s")


def ready_bound_s(graph: Graph) -> float:
    """Return the time limit for a start, in seconds: the largest `within_s` of all readiness probes, and a little more."""
    return READY_SLACK_S + graph.ready_within_s


def may_be_ready(draft: Draft) -> bool:
    """True if a path is up when all has come back that comes back without heal.

    Without a path, a frontend may never become ready. A wait until ready would last until its time is over.
    """
    return draft.model.settled().serves()


def _may_wait(draft: Draft) -> bool:
    follows_a_wait = bool(draft.steps) and isinstance(draft.steps[-1], Wait)
    return draft.waited_s() < PLAN_WAITS_MAX_S and not follows_a_wait


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    yield Wait(round(min(pick.ahead["for_s"], PLAN_WAITS_MAX_S - draft.waited_s()), 2))


def _may_wait_until_ready(draft: Draft) -> bool:
    return _something_comes(draft) and may_be_ready(draft)


def _something_comes(draft: Draft) -> bool:
    """True if a step since the last wait until ready lets a replica come back: by a respawn, a stall's end, or the supervisor."""
    restarts = draft.model.spec.restart == "always"
    since = itertools.takewhile(lambda s: not isinstance(s, WaitReady), reversed(draft.steps))
    return any(step.is_fault if restarts else step.repairs or step.lasts_s > 0 for step in since)


def _draw_ready(draft: Draft, pick: Pick) -> Iterator[Step]:
    del draft, pick
    yield WaitReady()

"""Waits: for a time, or until every replica that lives is ready."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from graphquake.harness.spec.steps.actions import Landed, Scene, landed_now
from graphquake.harness.spec.steps.kind import (
    SECONDS,
    WAIT_MAX_S,
    Draft,
    Knob,
    Pick,
    Rule,
    Step,
    number,
)
from graphquake.harness.spec.steps.model import GraphModel

# The longest time that a drawn plan waits in all.
PLAN_WAITS_MAX_S: Final = 6.0
# Log-uniform from 20 ms to 2 s: a race needs a short wait as often as a slow clean-up needs a long one.
WAITS_S: Final = (0.02, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.5, 2.0)
# `wait until ready` waits so much longer than the roles' own `within_s` allow, in seconds.
READY_SLACK_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Wait(Step):
    """Let time pass.

    Attributes:
        for_s: the time, in seconds.
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
        """The step from its text form."""
        return cls(number(found["for"], 0, WAIT_MAX_S, "seconds"))

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Never twice in a row, and not for longer than the plan may wait in all."""
        return (Rule("wait", _draw, _may_wait, ahead={"for_s": WAITS_S}),)

    @property
    def waits_s(self) -> float:
        """The time that passes."""
        return self.for_s

    def after(self, model: GraphModel) -> GraphModel:
        """Time has passed."""
        return model.later(self.for_s)

    async def run(self, scene: Scene) -> Landed:
        """Sleep."""
        del scene
        await asyncio.sleep(self.for_s)
        return landed_now("")

    def knobs(self) -> tuple[Knob, ...]:
        """Its length."""
        return (Knob("for_s", 0.01, 0.05, matters=True, is_time=True),)


@dataclass(frozen=True, slots=True)
class WaitReady(Step):
    """Wait until every replica that lives is ready, and the graph lists at least those."""

    verb: ClassVar[str] = "wait"
    form: ClassVar[str] = "wait until ready"
    pattern: ClassVar[str] = "wait until ready"
    is_wait: ClassVar[bool] = True
    prior: ClassVar[float] = 0.04

    def __str__(self) -> str:
        return "wait until ready"

    @classmethod
    def parse(cls, found: re.Match[str]) -> WaitReady:
        """The step from its text form."""
        del found
        return cls()

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Only while something comes back."""
        return (Rule("wait_until_ready", _draw_ready, _something_comes),)

    def after(self, model: GraphModel) -> GraphModel:
        """All that comes back without help is back."""
        return model.settled()

    async def run(self, scene: Scene) -> Landed:
        """Wait. A graph that is not ready in time has not failed the step: the promises judge that."""
        within_s = READY_SLACK_S + scene.target.spec.ready_within_s
        ready = await scene.target.wait_ready(within_s)
        return landed_now("all ready" if ready else f"not ready within {within_s:g} s")


def _may_wait(draft: Draft) -> bool:
    follows_a_wait = bool(draft.steps) and isinstance(draft.steps[-1], Wait)
    return draft.waited_s() < PLAN_WAITS_MAX_S and not follows_a_wait


def _draw(draft: Draft, pick: Pick) -> Iterator[Step]:
    yield Wait(round(min(pick.ahead["for_s"], PLAN_WAITS_MAX_S - draft.waited_s()), 2))


def _something_comes(draft: Draft) -> bool:
    """A replica was respawned, goes on after a stall, or is brought back by the supervisor."""
    restarts = draft.model.spec.restart == "always"
    since = itertools.takewhile(lambda s: not isinstance(s, WaitReady), reversed(draft.steps))
    return any(step.is_fault if restarts else step.repairs or step.lasts_s > 0 for step in since)


def _draw_ready(draft: Draft, pick: Pick) -> Iterator[Step]:
    del draft, pick
    yield WaitReady()

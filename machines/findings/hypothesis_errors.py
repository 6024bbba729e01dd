"""What Hypothesis is told of a plan that breaks a promise, and what a round holds on to once it has found one."""

from __future__ import annotations

from dataclasses import dataclass

from graphquake.harness.spec.plan import Plan
from graphquake.machines.plans.subplan import embeds


class PromiseBroken(Exception):
    """A promise is broken by a plan; the message is the case's headline."""


class RoundOver(BaseException):
    """A finding was made with a plan that was drawn before the one at hand: Hypothesis can learn nothing from it."""


# One class a promise: Hypothesis tells failures apart by type and line.
_BROKEN: dict[str, type[PromiseBroken]] = {}


def broken(promise: str) -> type[PromiseBroken]:
    """The exception class of a promise."""
    name = "".join(part.capitalize() for part in promise.split("_")) + "Broken"
    return _BROKEN.setdefault(promise, type(name, (PromiseBroken,), {}))


@dataclass(frozen=True, slots=True)
class Minimal:
    """What a round has found.

    Attributes:
        plan: the minimal plan.
        drawn: the one that was drawn; the minimal plan is no part of it if a plainer one was found.
        broken: what is raised for both, and for whatever contains the minimal plan.
        title: its message.
    """

    plan: Plan
    drawn: Plan
    broken: type[PromiseBroken]
    title: str

    def breaks_with(self, plan: Plan) -> bool:
        """What Hypothesis is told from now on."""
        return plan == self.drawn or embeds(self.plan, plan)

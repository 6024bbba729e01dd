"""The exceptions that tell Hypothesis about a drawn plan, and the finding by which Hypothesis shrinks without live runs."""

from __future__ import annotations

from dataclasses import dataclass

from graphquake.harness.spec.plan import Plan
from graphquake.machines.plans.subplan import embeds


class PromiseBroken(Exception):
    """A plan breaks a promise. The message is the headline of its case."""


class StopDrawing(BaseException):
    """Ends the drawing of plans. Hypothesis does not treat it as a failure of the plan that was just drawn.

    Args:
        error: the error that ends the drawing, or None if it ends without an error.
    """

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error


# Name of a promise -> its exception class. Hypothesis tells failures apart by the type and the line of an exception.
_BROKEN: dict[str, type[PromiseBroken]] = {}


def broken(promise: str) -> type[PromiseBroken]:
    """The exception class of a promise."""
    name = "".join(part.capitalize() for part in promise.split("_")) + "Broken"
    return _BROKEN.setdefault(promise, type(name, (PromiseBroken,), {}))


@dataclass(frozen=True, slots=True)
class Found:
    """The finding that ended a round, as Hypothesis sees it.

    Attributes:
        minimal_plan: the minimal plan.
        drawn: the plan that was drawn. It does not contain the minimal plan if a plainer plan was found.
        error: the class of the error that is raised for `drawn`, and for every plan that contains the minimal plan.
        title: the error's message.
    """

    minimal_plan: Plan
    drawn: Plan
    error: type[PromiseBroken]
    title: str

    def breaks_with(self, plan: Plan) -> bool:
        """True if a plan is the drawn plan, or if the minimal plan embeds in it. Hypothesis is told that such a plan fails."""
        return plan == self.drawn or embeds(self.minimal_plan, plan)

"""A kind of step: one class in one file, found by the table.

A fault touches many parts: plans are read, drawn, checked against a model, carried out, undone, judged and shrunk. Each of these parts
once had a branch for each kind, so that a new kind meant a change in nine modules. Now a kind is one class. It answers all those
questions itself, and the parts only ask. The price is that a kind knows a little of each part. It sees them through small protocols
(`Graph`, `Actions`, `Draft`, `Pick`), so that it needs neither Hypothesis nor a live graph.

To add a kind, write a subclass of `Step` in a new file, and add it to `KINDS` in `table`. The smallest kind is a step without an effect. It
needs a text form and an action:

    @dataclass(frozen=True, slots=True)
    class Rest(Step):
        verb = "rest"
        form = "rest"
        pattern = "rest"

        def __str__(self) -> str:
            return "rest"

        @classmethod
        def parse(cls, found: re.Match[str]) -> Rest:
            return cls()

        async def run(self, scene: Scene) -> Landed:
            return landed_now("")

Then add, one at a time and only where the default is wrong:

- `rules`, so that it is drawn;
- `is_fault`, if it takes something away. A fault must prove that it landed. Its aims are in `aims`, also if there are several;
- `effect`, `check` and `possible`, so that the model knows the state after it, and when it is possible;
- `lasts_s` and `undo`, if it goes on after it has landed. Infinite means until heal;
- `knobs` for its numbers and `simpler` for other steps that do less, so that it is shrunk;
- `prior`, the share of failures that need a step of this kind.

`test_steps` adds a kind in this way and takes it through all of that.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Literal, Protocol, Self, TypeAlias, TypeVar

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, Scene, landed_now
from graphquake.harness.spec.steps.model import Graph, GraphModel, Ongoing

T = TypeVar("T")

# A plan is for minutes of live time, not hours: bounds on numbers that come from outside.
WAIT_MAX_S: Final = 600.0
ROLE: Final = r"(?P<role>[A-Za-z_][\w-]*) (?P<index>\d{1,6})"
SECONDS: Final = r"\d{1,9}(?:\.\d{1,9})?"

# The effect of a step on the replicas that it aims at:
#   nothing   no replica ends or stops
#   ends      the replica shuts down, and takes no new work from then on
#   kills     the replica is killed
#   dooms     a child is killed, and the replica dies with it
#   stops     the replica does no work until the step is undone
#   starts    the replica gets a new incarnation
Effect: TypeAlias = Literal["nothing", "ends", "kills", "dooms", "stops", "starts"]


def number(text: str, least: float, most: float, what: str) -> float:
    """A number of a step's text, at the precision that the text form shows.

    Raises:
        ValueError: if it is out of bounds.
    """
    value = round(float(text), 2)
    if not least <= value <= most:
        raise ValueError(f"found {text}, expected {what} from {least:g} to {most:g}")
    return value


# ------------------------------------------------------------------------------------------------------------ drawing


class Draft(Protocol):
    """A plan that is being drawn, as a rule sees it."""

    model: GraphModel
    steps: list[Step]

    @property
    def room(self) -> int:
        """The number of steps that may still be added."""
        ...

    def may_fault(self) -> bool:
        """True if one more fault may be drawn."""
        ...

    def waited_s(self) -> float:
        """The time that the plan waits so far, in seconds."""
        ...


class Pick(Protocol):
    """The choices of one draw. Only plain values are chosen among, so a kind needs no Hypothesis."""

    @property
    def replica(self) -> Replica:
        """The replica that was chosen among those that `Rule.at` allows."""
        ...

    @property
    def ahead(self) -> Mapping[str, Any]:
        """The values that were chosen from `Rule.ahead`, by name."""
        ...

    def one_of(self, values: Sequence[T]) -> T:
        """One of some values. Name a value twice to make it twice as likely."""
        ...

    def flag(self) -> bool:
        """True or False."""
        ...


FLAG: Final = (False, True)


def always(_: Draft) -> bool:
    """The condition of a rule that is always possible."""
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to draw steps of a kind. All rules that apply are equally likely, so a kind with two rules is drawn twice as often.

    Attributes:
        name: the name of the rule. The rules of all kinds are ordered by it.
        make: yields the steps that are added to the plan. The draft holds each of them when the next one is asked for.
        may: the condition, in addition to room for one more step and the limit on faults.
        at: the step at a given replica. The rule then picks a replica at which that step is possible. None if it does not pick one.
        ahead: values to choose among before `make` is called, by name. Use `FLAG` for a flag.
        picks: `make` chooses among values. This follows from `at`.
    """

    name: str
    make: Callable[[Draft, Pick], Iterator[Step]]
    may: Callable[[Draft], bool] = always
    at: Callable[[Replica], Step] | None = None
    ahead: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    picks: bool = False


# ---------------------------------------------------------------------------------------------------------- shrinking


@dataclass(frozen=True, slots=True)
class Knob:
    """A number of a step that the shrinker may lower.

    Attributes:
        name: the field that holds it.
        unit: the least difference that matters.
        least: the least value that is worth a run. Smaller ones are as good as it.
        seldom: it matters in few failures.
        matters: it is known to matter: at its least value the step would have no effect.
        is_time: the run takes longer when it is large.
    """

    name: str
    unit: float
    least: float
    seldom: bool = False
    matters: bool = False
    is_time: bool = False


# ------------------------------------------------------------------------------------------------------------- a kind


@dataclass(frozen=True, slots=True)
class Step(ABC):
    """One action of a plan.

    Attributes:
        verb: the first word of the text form. Two kinds may share it.
        form: the text form, as an error message shows it.
        pattern: the text form as a regular expression.
        is_fault: it takes something away from the graph. A fault that did not land makes the run invalid.
        repairs: it brings back what an earlier fault took from its aims.
        is_wait: it only lets time pass.
        adds_load: it sends requests.
        prior: the share of failures that need a step of this kind, counted over simulated failures.
    """

    verb: ClassVar[str]
    form: ClassVar[str]
    pattern: ClassVar[str]
    is_fault: ClassVar[bool] = False
    repairs: ClassVar[bool] = False
    is_wait: ClassVar[bool] = False
    adds_load: ClassVar[bool] = False
    prior: ClassVar[float] = 0.25

    # ---- text

    @abstractmethod
    def __str__(self) -> str:
        """The text form."""

    @classmethod
    @abstractmethod
    def parse(cls, found: re.Match[str]) -> Step:
        """The step from its text form.

        Raises:
            ValueError: if a number is out of bounds.
        """

    # ---- drawing

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """The ways in which steps of this kind are drawn. Empty if it is only written by hand."""
        return ()

    def feature(self, graph: Graph) -> str:
        """The step without its numbers: steps with the same text show the same, so one of them is worth a run."""
        del graph
        return " ".join([self.verb, *dict.fromkeys(one.role for one in self.aims)])

    # ---- time

    @property
    def waits_s(self) -> float:
        """The time that the step lets pass, in seconds."""
        return 0.0

    @property
    def lasts_s(self) -> float:
        """The time from when the step has landed until it is undone, in seconds, or infinity if only heal undoes it."""
        return 0.0

    @property
    def sends_s(self) -> float:
        """The time over which the step sends requests, in seconds."""
        return 0.0

    # ---- the model

    @property
    def aims(self) -> tuple[Replica, ...]:
        """The replicas that it acts on."""
        return ()

    def effect(self, graph: Graph) -> Effect:
        """The effect on the replicas that it aims at."""
        del graph
        return "nothing"

    def check(self, model: GraphModel) -> str | None:
        """The reason why the graph can never take this step, or None if it can."""
        return next((said for said in map(model.unknown, self.aims) if said), None)

    def possible(self, model: GraphModel) -> str | None:
        """The reason why the step is not possible now, or None if it is."""
        if said := self.check(model):
            return said
        for replica in self.aims:
            if not model.lives(replica):
                return f"{replica} does not live any more"
            if model.is_stopped(replica):
                return f"{replica} is stalled"
        return None

    def after(self, model: GraphModel) -> GraphModel:
        """The model after this step."""
        effect = self.effect(model.spec)
        if self.lasts_s:
            ongoing = Ongoing(self.verb, self.aims, self.lasts_s, stops=effect == "stops")
            return model.with_ongoing(ongoing)
        for replica in self.aims:
            if effect in ("kills", "dooms"):
                model = model.with_ended(replica)
            elif effect == "ends":
                model = model.with_ending(replica)
            elif effect == "starts":
                model = model.with_started(replica)
        return model

    # ---- carrying it out

    @abstractmethod
    async def run(self, scene: Scene) -> Landed:
        """Carry the step out, and prove that it took effect. It ends when it has, not when its consequences are over."""

    async def undo(self, scene: Scene) -> Landed:
        """End the effects that have lasted since the step landed. It is called once, `lasts_s` after that or at heal."""
        del scene
        return landed_now("nothing to undo")

    # ---- shrinking

    def knobs(self) -> tuple[Knob, ...]:
        """Its numbers, in the order in which they are lowered."""
        return ()

    def turned(self, name: str, value: float) -> Step:
        """The step with another value of a number."""
        whole = isinstance(getattr(self, name), int)
        return replace(self, **{name: round(value) if whole else round(value, 2)})

    def simpler(self) -> Iterator[Step]:
        """Other steps that do less, the simplest first, beyond lower numbers. Each must be covered by this one, see `covers`."""
        yield from ()

    def covers(self, other: Step) -> bool:
        """True if this step does at least as much as another: the same, with numbers that are at least as large."""
        if type(self) is not type(other):
            return False
        names = [knob.name for knob in self.knobs()]
        if not names:
            return self == other
        return all(getattr(self, name) >= getattr(other, name) for name in names) and self == (
            replace(other, **{name: getattr(self, name) for name in names})
        )

    def moved(self, to: Callable[[Replica], Replica]) -> Self:
        """The same step at other replicas."""
        del to
        return self


@dataclass(frozen=True, slots=True)
class Aimed(Step):
    """A step that aims at one replica."""

    role: str
    index: int

    @property
    def aims(self) -> tuple[Replica, ...]:
        """The one replica."""
        return (Replica(self.role, self.index),)

    @property
    def aim(self) -> Replica:
        """The replica."""
        return Replica(self.role, self.index)

    def moved(self, to: Callable[[Replica], Replica]) -> Self:
        """The same step at another replica."""
        new = to(self.aim)
        return replace(self, role=new.role, index=new.index)

    @classmethod
    def at(cls, replica: Replica) -> Self:
        """The step at a replica, with the defaults of its kind."""
        return cls(replica.role, replica.index)


def disturbs(step: Step) -> bool:
    """True if the step takes something away, or adds load."""
    return step.is_fault or step.adds_load

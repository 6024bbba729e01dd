"""The base class of all kinds of steps. Each kind is one subclass in its own file, and stands in the list `KINDS` of `table`.

Steps are read, drawn, checked against a model, carried out, undone, judged and shrunk. If each part had a branch for each kind, a new kind
would change nine modules. So the class of a kind answers the questions of all parts. It uses small protocols (`Graph`, `Actions`, `Draft`,
`Pick`), so a kind needs neither Hypothesis nor a live graph.

To add a kind, write a subclass of `Step` in a new file, and add it to `KINDS` in `table`. The smallest kind is a step without an effect.
Such a kind needs a text form and an action:

    @dataclass(frozen=True, slots=True)
    class Rest(Step):
        verb = form = pattern = "rest"

        def __str__(self) -> str:
            return "rest"

        @classmethod
        def parse(cls, found: re.Match[str]) -> Rest:
            return cls()

        async def run(self, scene: Scene) -> Landed:
            return landed_now("")

Then add, one at a time and only where the default is wrong:

- `rules`, so that searches draw the step. With `Rule.timed`, a search also draws the fault right after a wait for an event;
- `is_fault`, if the step takes something away from the graph. A fault must prove that it landed. `aims` gives all its target replicas;
- `effect`, `fits`, `check` and `possible`, for the model;
- `lasts_s` and `undo`, if the step acts on the graph after it has landed. Infinity means until heal;
- `knobs` for the numbers of the step, `simpler` for other steps that do less, and `prior`, so that the step is shrunk.
`test_steps` adds a new kind in this way, and tests that it is read, drawn, carried out and shrunk.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Literal, Protocol, Self, TypeAlias, TypeVar

from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import Landed, Scene, landed_now
from graphquake.harness.spec.steps.knob import Knob
from graphquake.harness.spec.steps.model import Graph, GraphModel, Ongoing, Role

T = TypeVar("T")
# The longest wait, stall, burst or stay of a plan, in seconds: a run takes minutes, not hours.
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
    """Return the number that a part of a step's text stands for, rounded to two decimals, the precision of the text form.

    Args:
        text: the number as text.
        least: the least allowed number.
        most: the largest allowed number.
        what: the meaning or the unit of the number, for the error message, e.g. "seconds".

    Raises:
        ValueError: if the number is out of these bounds.
    """
    value = round(float(text), 2)
    if not least <= value <= most:
        raise ValueError(f"found {text}, expected {what} from {least:g} to {most:g}")
    return value


class Begun(Protocol):
    """The first steps of a plan.

    Attributes:
        model: the state that the graph should have after the steps so far.
        steps: the steps so far.
    """

    model: GraphModel
    steps: list[Step]


class Draft(Begun, Protocol):
    """A plan that is being drawn, with the properties that a rule may use."""

    @property
    def room(self) -> int:
        """The number of steps that may still be added to the plan."""
        ...

    def may_fault(self) -> bool:
        """True if the plan has room for one more fault."""
        ...

    def waited_s(self) -> float:
        """Return the sum of the waits in the plan so far, in seconds."""
        ...


class Pick(Protocol):
    """The choices of one draw. A kind only chooses among plain values, so it does not depend on Hypothesis."""

    @property
    def replica(self) -> Replica:
        """The replica that was chosen for the step of `Rule.at`. That step is possible at this replica."""
        ...

    @property
    def ahead(self) -> Mapping[str, Any]:
        """The chosen value for each name in `Rule.ahead`."""
        ...

    def one_of(self, values: Sequence[T]) -> T:
        """Choose one of some values. A value that is given twice is twice as likely."""
        ...

    def flag(self) -> bool:
        """Choose True or False."""
        ...


FLAG: Final = (False, True)


def always(_: Draft) -> bool:
    """Return True: the condition of a rule that may be used for every draft."""
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to draw steps of a kind. All rules that may be used are equally likely, so a kind with two rules is drawn twice as often.

    Attributes:
        name: the name of the rule. The rules of all kinds are sorted by name.
        make: yields the steps to add to the plan. Each step is in the draft before `make` continues.
        may: the condition under which the rule may be used. Room for one more step and the limit on faults are checked besides.
        at: makes the step at a given replica. A replica at which this step is possible is then chosen before `make` is called. None if
            the rule does not need a replica.
        ahead: for each name, the values among which one is chosen before `make` is called. Use `FLAG` for True or False.
        timed: true if `make` yields one fault, which a search may also draw right after a wait for an event.
        seldom: true for unusual bursts, and for faults beyond kills, terminations and plain stalls. All such rules together are drawn as
            often as one other rule, and their plans are swept later. So a bug that needs only kills is found as soon as without them.
        picks: must be true if `make` calls `one_of` or `flag` of its `Pick` and `at` is None. It has no effect if `at` is set.
    """

    name: str
    make: Callable[[Draft, Pick], Iterator[Step]]
    may: Callable[[Draft], bool] = always
    at: Callable[[Replica], Step] | None = None
    ahead: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    picks: bool = False
    timed: bool = False
    seldom: bool = False


@dataclass(frozen=True, slots=True)
class Step(ABC):
    """One action of a plan.

    Attributes:
        verb: the first word of the text form. Two kinds may have the same verb.
        title: the name of the kind in the lists `faults` of a graph file, if it is not the verb. Two kinds with one verb have two titles.
        by_default: true if a search draws faults of this kind where the graph file has no list `faults`.
        form: the text form with words in capitals for its parts, for error messages, e.g. `stall ROLE INDEX for T s`.
        pattern: the text form as a regular expression.
        is_fault: true if the step takes something away from the graph. A fault that did not land makes the run invalid.
        repairs: true if the step undoes an earlier fault at the same replicas, as a respawn does.
        is_wait: true if the step only lets time pass.
        unready: true if the replicas in `aims` are not ready until the step is undone.
        plain_s: the length of the plain wait that may stand in place of a wait for an event, in seconds. That wait takes about as long.
            0 for all other steps.
        adds_load: true if the step sends requests.
        is_link: true if the step acts on links between replicas, of which a graph has many.
        is_own: true if the graph file defines the step (see `own`).
        prior: the share of failures that need a step of this kind, 0 to 1, counted over simulated failures.
    """

    verb: ClassVar[str]
    title: ClassVar[str] = ""
    form: ClassVar[str]
    pattern: ClassVar[str]
    is_fault: ClassVar[bool] = False
    repairs: ClassVar[bool] = False
    is_wait: ClassVar[bool] = False
    unready: ClassVar[bool] = False
    plain_s: ClassVar[float] = 0.0
    adds_load: ClassVar[bool] = False
    is_link: ClassVar[bool] = False
    is_own: ClassVar[bool] = False
    by_default: ClassVar[bool] = True
    prior: ClassVar[float] = 0.25

    # ---- text

    @property
    def called(self) -> str:
        """The title of the step's kind. It is the verb, if the kind has no other title."""
        return self.title or self.verb

    @abstractmethod
    def __str__(self) -> str:
        """Return the text form of the step, e.g. `kill decode 0`."""

    @classmethod
    @abstractmethod
    def parse(cls, found: re.Match[str]) -> Step:
        """Return the step that a text form describes.

        Args:
            found: the match of `pattern` with the whole text.

        Raises:
            ValueError: if a number is out of bounds.
        """

    # ---- drawing

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Return the rules by which steps of this kind are drawn. Empty if they are only written by hand."""
        return ()

    @classmethod
    def fits(cls, role: Role) -> bool:
        """False if steps of this kind are never possible at a role, e.g. because it has no child processes."""
        del role
        return True

    def feature(self, graph: Graph) -> str:
        """Return the text of the step without its exact numbers. A search prefers plans whose steps have texts that few runs had."""
        del graph
        return " ".join([self.verb, *dict.fromkeys(one.role for one in self.aims)])

    # ---- time

    @property
    def waits_s(self) -> float:
        """The time that the step waits, in seconds, or 0 if it does not wait for a given time."""
        return 0.0

    @property
    def lasts_s(self) -> float:
        """The time from the landing of the step to its undo, in seconds. 0 if there is nothing to undo, infinity if only heal undoes it."""
        return 0.0

    @property
    def sends_s(self) -> float:
        """The time over which the step sends requests, in seconds, or 0 if it sends none or all at once."""
        return 0.0

    # ---- the model

    @property
    def aims(self) -> tuple[Replica, ...]:
        """The replicas that the step acts on."""
        return ()

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that the step acts on. The lists `faults` of these roles decide whether the step is drawn."""
        return tuple(dict.fromkeys(one.role for one in self.aims))

    def effect(self, graph: Graph) -> Effect:
        """Return the effect of the step on the replicas in `aims` (see `Effect`)."""
        del graph
        return "nothing"

    def check(self, model: GraphModel) -> str | None:
        """Return the reason why the step is impossible in every state of the graph or on this machine, or None if it is not."""
        if lacks := model.spec.lacks.get(self.called):
            return f"not possible here: {lacks}"
        return next((said for said in map(model.unknown, self.aims) if said), None)

    def possible(self, model: GraphModel) -> str | None:
        """Return the reason why the step is impossible in the present state of the model, or None if it is possible."""
        if said := self.check(model):
            return said
        return next((said for said in map(model.out_of_reach, self.aims) if said), None)

    def after(self, model: GraphModel) -> GraphModel:
        """Return the model after this step."""
        effect, left_s = self.effect(model.spec), self.lasts_s
        if left_s:
            stops = effect == "stops"
            return model.with_ongoing(Ongoing(self.verb, self.aims, left_s, stops, self.unready))
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
        """Carry out the step, and prove that it took effect. Return as soon as it has landed, even if it still acts on the graph."""

    async def undo(self, scene: Scene) -> Landed:
        """Undo a step that still acts on the graph. A run calls this once: `lasts_s` after the step has landed, or at heal."""
        del scene
        return landed_now("nothing to undo")

    # ---- shrinking

    def knobs(self) -> tuple[Knob, ...]:
        """Return the numbers of the step that the shrinker may lower, in the order in which it lowers them."""
        return ()

    def turned(self, name: str, value: float) -> Step:
        """Return the step with another value of one number.

        Args:
            name: the field of the step that holds the number.
            value: the new value.
        """
        whole = isinstance(getattr(self, name), int)
        return replace(self, **{name: round(value) if whole else round(value, 2)})

    def simpler(self, graph: Graph) -> Iterator[Step]:
        """Yield other steps that do less than this step, the simplest first. This step must cover each of them (see `covers`).

        The shrinker tries them in place of this step. Steps that only have lower numbers do not belong here: `knobs` gives those.
        """
        del graph
        yield from ()

    def covers(self, other: Step) -> bool:
        """True if this step does at least as much as another step: both are equal, but the numbers of this step may be larger."""
        if type(self) is not type(other):
            return False
        names = [knob.name for knob in self.knobs()]
        if not names:
            return self == other
        return all(getattr(self, name) >= getattr(other, name) for name in names) and self == (
            replace(other, **{name: getattr(self, name) for name in names})
        )

    def moved(self, to: Callable[[Replica], Replica]) -> Self:
        """Return the same step at other replicas.

        Args:
            to: gives the new replica for each present one.
        """
        del to
        return self


@dataclass(frozen=True, slots=True)
class Aimed(Step):
    """A step that aims at one replica.

    Attributes:
        role: the role of the replica.
        index: the number of the replica within its role, from 0.
    """

    role: str
    index: int

    @property
    def aims(self) -> tuple[Replica, ...]:
        """The replica that the step aims at, as the only item."""
        return (Replica(self.role, self.index),)

    @property
    def aim(self) -> Replica:
        """The replica that the step aims at."""
        return Replica(self.role, self.index)

    def moved(self, to: Callable[[Replica], Replica]) -> Self:
        """Return the same step at the replica that `to` gives for the present one."""
        new = to(self.aim)
        return replace(self, role=new.role, index=new.index)

    @classmethod
    def at(cls, replica: Replica) -> Self:
        """Return a step of this kind at a replica. Its other fields have their default values."""
        return cls(replica.role, replica.index)


def disturbs(step: Step) -> bool:
    """True if the step is a fault, sends requests, or is one of the user's own."""
    return step.is_fault or step.adds_load or step.is_own

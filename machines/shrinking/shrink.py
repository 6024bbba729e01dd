"""A plan that fails -> the smallest one that fails in the same way, at the least number of live runs.

A live run costs ten seconds, so everything here is about which run to make next. In this order:

1. *Cut* the plan where the violation began; what came later is not behind it. *Reproduce* it on fresh graphs.
2. *Steps*: leave out what promises the most (`suspects`), then pairs of steps that only together do without. If several are left, hold
   them against the plainest plans there are, a run each: what any death of a worker shows may have been met as two others dying, and
   a burst as two that come together. Removal never finds these, since they are no part of what was drawn.
3. *Numbers*: waits, bursts and the length of the run, by bisection (`numbers`).
4. *Confirm* the minimal plan in fresh runs; if it breaks far less often than the plan before it, step back to that one.
5. *Controls*: the minimal plan without its faults. One that breaks says that it is about load alone.
6. *Last*, leave out every single step until enough runs were kept to call the plan minimal; and try other replicas.

**Noise is one-sided.** A run that breaks the promise is proof, and accepts a candidate at once; a run that keeps it is a hint, and how many
of them reject follows from the rate seen so far (`rates`). So with steps too few runs can only leave a step too many, and the last check
looks for those again. With numbers it is the other way round: a lower number may still fail, now and then, so a number is
accepted only if its runs speak for the rate that the plan had before, and not for a quarter of it (Wald's sequential test).

**Used graphs.** Where a graph starts slowly, one that healed clean is used again for candidates. Something of an earlier run may be left in
it all the same, unseen: so runs on used graphs alone reject nothing, and what only ever broke on used ones has to break on a fresh one
before confirming runs rest on it; if it does not, the shrinker steps back and uses none any more.

The shrinker knows neither graphs nor Hypothesis: it asks a function for runs, and what it does follows from their answers alone, with no
chance in it. Whatever ends it early, it hands back the smallest plan that it has seen fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Aimed, Plan, Step
from graphquake.machines.plans.graph_model import feasible
from graphquake.machines.plans.subplan import embeds
from graphquake.machines.runners.budget import BudgetSpent
from graphquake.machines.shrinking.parameters import Number, numbers, smallest
from graphquake.machines.shrinking.probdd import Removal, Suspects, pairs, suspects
from graphquake.machines.shrinking.result import Shrunk, thresholds, without_each
from graphquake.machines.shrinking.stats import (
    cautious,
    chance_of_fewer,
    on_the_way,
    passes_to_reject,
)
from graphquake.machines.shrinking.trials import (
    Count,
    OnTrial,
    RunPlan,
    Trial,
    TrialLog,
)

__all__ = ["Shrunk", "Trial", "shrink"]

# Not seen again in so many fresh runs: unconfirmed. At a rate of .3, one finding in eight ends so; at .6, one in 250.
REPRODUCE_MAX: Final = 6
# Nobody waits for more kept runs of one candidate, however seldom it shows: these are 95% at a rate of .22.
PASSES_MAX: Final = 12
# A minimal plan has several steps, each of which may be there by accident: so each is tried more often than 95% would ask for.
MINIMAL_SURE: Final = 0.97
# What the rate of the plans before says about a plan's own, in runs.
BEFORE_RUNS: Final = 4
# The share of M's rate below which a smaller plan stands for something else.
ERODED: Final = 0.5
# From where on a lower rate is looked into, and from where on it is taken for no accident (Fisher's exact test).
DOUBT: Final = 0.12
BY_ACCIDENT: Final = 0.03
# A rate that rests on fewer runs than this cannot even cast a doubt by that test: then being half of it is enough to look.
FEW_RUNS: Final = 3
# So many runs each tell a rate from a quarter of it, at rates from .4 on; below, they could not.
COMPARE_RUNS: Final = 14
COMPARABLE: Final = 0.40
# A number's runs must speak so much more for M's rate than for a quarter of it; one broken run does exactly that.
SPEAKS_FOR: Final = 4.0
# Where the rate is low, one broken run of a plan of a quarter of it is no rare accident: then it is two.
SPEAKS_FOR_SELDOM: Final = 8.0
SPEAKS_AGAINST: Final = 0.1
QUARTER: Final = 0.25
# Above this rate a step that is still there has hardly been kept by accident: it is soon enough to look again at the end.
OFTEN: Final = 0.80
# How likely a run is to break whose answer nothing foretells: only what is run beforehand depends on these.
LIKELY: Final = 0.85
EVEN: Final = 0.5
UNLIKELY: Final = 0.05
# At low rates each value of a number costs ten runs: what they may cost in all. What is left open is only a size.
NUMBER_RUNS_MAX: Final = 16


def shrink(
    spec: GraphSpec,
    plan: Plan,
    first: Trial,
    run: RunPlan,
    *,
    reuse: RunPlan | None = None,
    blame: tuple[float, ...] | None = None,
    on_trial: OnTrial | None = None,
    plainest: Sequence[Plan] = (),
    confirmations: int = 10,
    controls: int = 3,
) -> Shrunk:
    """Shrink a plan that was seen to fail.

    Args:
        spec: the graph; only plans that its model says are possible are run.
        plan: what failed.
        first: what that run said. It is no fresh run: the plan was chosen for it.
        run: makes one live run of a plan on a fresh graph; raises `BudgetSpent` if there is none left.
        reuse: makes one on a graph that was used before, if there is one, for what takes no fresh one; see `used graphs` above.
        blame: instead of `first.blame`.
        on_trial: told before each live run why it is made, of what, and how likely it is to break.
        plainest: plans of one step that may stand for a plan of several, the plainest first.
        confirmations: fresh runs of the minimal plan, those included that were made on the way.
        controls: fresh runs of the minimal plan without its faults.

    Returns:
        The minimal plan, which embeds in `plan` unless it is one of the plainest, with its evidence.
    """
    log = TrialLog(run, on_trial, reuse)
    shrinker = _Shrinker(spec, plan, log, plainest, confirmations, controls)
    try:
        shrinker.go(first, first.blame if blame is None else blame)
    except BudgetSpent:
        return shrinker.result(complete=False)
    return shrinker.result(complete=True)


@dataclass(slots=True)
class _Shrinker:
    """The state of one shrink.

    Attributes:
        held: the plans that were accepted, the smallest last; empty until it was reproduced.
        now: the last of them, with what is believed about its steps.
    """

    spec: GraphSpec
    original: Plan
    log: TrialLog
    plainest: Sequence[Plan]
    confirmations: int
    controls: int
    held: list[Plan] = field(default_factory=list)
    any_replica: bool | None = None
    now: Suspects = field(init=False)

    def __post_init__(self) -> None:
        self.now = suspects(self.spec, self.original)

    @property
    def minimal(self) -> Plan:
        return self.held[-1] if self.held else self.original

    def go(self, first: Trial, blame: tuple[float, ...]) -> None:
        if not self._reproduce(first, blame):
            return
        self._leave_out_steps()
        self._try_plainer()
        if self._rate() < OFTEN:
            # A step too many in the confirming runs would cost all of them.
            while self._leave_out_singles():
                self._leave_out_steps()
        self._lower_numbers()
        while True:
            if not self._stands_on_fresh_graphs():
                self._leave_out_steps()
                self._lower_numbers()
            self._confirm()
            self._control()
            # Only now is the rate of this plan known, and with it how many kept runs are enough.
            if not self._leave_out_singles():
                break
            self._leave_out_steps()
        self.any_replica = self._try_other_replicas()

    # ---- what the runs so far say

    def _pooled(self, plans: list[Plan]) -> Count:
        """All runs of some plans together."""
        counts = [self.log.count(plan) for plan in dict.fromkeys(plans)]
        return Count(sum(c.ever_broke for c in counts), sum(c.ever_kept for c in counts))

    def _own(self) -> tuple[int, int]:
        """How many of how many fresh runs of the minimal plan broke it.

        The run that accepted it does not count: without that one it would not be the plan that is asked about.
        """
        own = self.log.count(self.minimal)
        accepting = min(own.broke, 0 if own.used_broke else 1)
        return own.broke - accepting, own.runs - accepting

    def _rate(self) -> float:
        """The rate to search by."""
        count = self._pooled(self.held)
        return on_the_way(count.broke, count.runs)

    def _passes_to_be_sure(self) -> int:
        """How many kept runs of a candidate say that it does not break at the minimal plan's rate, cautiously."""
        broke, runs = self._own()
        rate = cautious(broke + BEFORE_RUNS * self._rate(), runs + BEFORE_RUNS)
        return min(PASSES_MAX, passes_to_reject(rate, MINIMAL_SURE))

    # ---- reproducing

    def _reproduce(self, first: Trial, blame: tuple[float, ...]) -> bool:
        whole = suspects(self.spec, self.original, blame)
        cut = whole.until(first.last_step)
        uncut = whole.without(frozenset())
        half = REPRODUCE_MAX // 2
        tries = [cut] * half + [uncut] * half if cut != uncut else [cut] * REPRODUCE_MAX
        for one in tries:
            if one.plan in self.log.aside:
                continue
            if self.log.once_more(one.plan, "reproduce", LIKELY).kind == "broken":
                self._accept(one)
                return True
        return False

    # ---- steps

    def _accept(self, smaller: Suspects) -> None:
        if smaller.plan not in self.held:
            self.held.append(smaller.plan)
        self.now = smaller.after_last(self.log.shown(smaller.plan).last_step)

    def _try_without(self, removal: Removal, reason: str) -> bool:
        """One run without those steps, unless it is known what that says."""
        smaller = self.now.without(removal)
        if smaller.plan not in self.log.aside:
            likely = self.now.chance(removal) * self._rate()
            self.log.once_more(smaller.plan, reason, likely, fresh=False)
        if self.log.count(smaller.plan).ever_broke and smaller.plan not in self.log.eroded:
            self._accept(smaller)
            return True
        self.now = self.now.kept(removal, self._rate())
        return False

    def _leave_out_steps(self) -> None:
        if self.minimal.stay_s:
            # A long stay costs more than any step: first of all, without it.
            shorter = replace(self.now, plan=replace(self.minimal, stay_s=0.0))
            if self.log.breaks(
                shorter.plan, passes_to_reject(self._rate()), "without its long stay", EVEN
            ):
                self._accept(shorter)
        while (removal := self.now.best(self.log.is_set_aside)) is not None:
            self._try_without(removal, "without " + self._names(removal))
        while any(self._try_pair(*pair) for pair in pairs(self.minimal)):
            pass

    def _try_pair(self, one: int, two: int) -> bool:
        removal = self.now.mended(frozenset([one, two]))
        smaller = self.now.without(removal)
        reason = "without both " + self._names(removal)
        if not self.log.breaks(smaller.plan, passes_to_reject(self._rate()), reason, UNLIKELY):
            return False
        self._accept(smaller)
        return True

    def _try_plainer(self) -> None:
        """Hold a plan of several steps against the plainest ones; those that are a part of it were tried already."""
        for plan in self.plainest:
            plain = suspects(self.spec, replace(plan, heal=self.original.heal))
            if len(self.minimal.steps) == 1 or embeds(plain.plan, self.minimal):
                continue
            if self.log.breaks(plain.plan, 1, "is a plainer plan enough", UNLIKELY):
                self._accept(plain)

    def _leave_out_singles(self) -> bool:
        """Leave out each step by itself, often enough to be sure. Whether one could be left out after all.

        In turns, the least suspect first: if one can be left out, the runs spent on the others were for nothing.
        """
        passes = self._passes_to_be_sure()
        order = sorted(range(len(self.now.needed)), key=lambda place: self.now.needed[place])
        for turn in range(1, passes + 1):
            for place in order:
                removal = self.now.mended(frozenset([place]))
                smaller = self.now.without(removal)
                reason = "is it minimal: without " + self._names(removal)
                if self.log.breaks(smaller.plan, turn, reason, UNLIKELY, of=passes):
                    self._accept(smaller)
                    return True
        return False

    def _names(self, removal: Removal) -> str:
        return ", ".join(f"{self.minimal.steps[place]}" for place in sorted(removal))

    # ---- numbers

    def _lower_numbers(self) -> None:
        """Lower each number; first, in one run, all of those that seldom matter."""
        all_numbers = list(numbers(self.minimal))
        seldom = [
            number
            for number in all_numbers
            if number.seldom and number.of(self.minimal) > number.least
        ]
        if len(seldom) > 1:
            lower = self.minimal
            for number in seldom:
                lower = number.put(lower, number.least)
            self._accepts_lower(
                lower, "all at once: " + ", ".join(dict.fromkeys(n.name for n in seldom))
            )
        until = len(self.log.all) + NUMBER_RUNS_MAX
        for number in all_numbers:
            self._lower(number, until)

    def _lower(self, number: Number, until: int) -> None:
        """Lower one number, as long as the journal is no longer than that."""
        below: list[Plan] = []

        def accepts(value: float) -> bool:
            lower, name = number.put(self.minimal, value), f"{number.name} {value:g}"
            if len(self.log.all) >= until:
                return False
            if not self._accepts_lower(lower, name):
                below.append(lower)
            return lower == self.minimal

        value = number.of(self.minimal)
        smallest(value, number.least, number.unit, accepts, matters=number.matters)
        # Each value that was not accepted is higher than those before: if used graphs said so, one fresh one has to agree to the last.
        if below and self.log.count(below[-1]).used_kept and not self.log.count(below[-1]).kept:
            again = self.log.once_more(below[-1], f"below {number.name}", UNLIKELY)
            if again.kind == "broken":
                self.log.reuse = None
                self._lower(number, until)

    def _accepts_lower(self, lower: Plan, reason: str) -> bool:
        """Whether a plan with lower numbers breaks as often as before, by a sequential likelihood ratio test."""
        if not feasible(self.spec, lower):
            # Less waiting, and a replica that restarts by itself is not back in time.
            return False
        smaller = replace(self.now, plan=lower)
        rate = min(self._rate(), 0.99)
        low = rate * QUARTER
        while smaller.plan not in self.log.aside | self.log.eroded:
            count = self.log.count(smaller.plan)
            speaks = (rate / low) ** count.ever_broke
            speaks *= ((1 - rate) / (1 - low)) ** count.ever_kept
            enough = SPEAKS_FOR if rate >= OFTEN else SPEAKS_FOR_SELDOM
            if count.ever_broke and speaks >= enough * 0.999:
                self._accept(smaller)
                return True
            if speaks <= SPEAKS_AGAINST:
                return False
            self.log.once_more(lower, reason, EVEN, fresh=False)
        return False

    # ---- evidence

    def _stands_on_fresh_graphs(self) -> bool:
        """Whether the minimal plan breaks on a fresh graph, and not on used ones alone.

        If it does not, what an earlier run had left in a graph was taken for the plan's own doing: back to the last plan that did break on
        a fresh one, and from now on each run gets its own.
        """
        stands = True
        while not self.log.count(self.minimal).broke:
            while self._may_stand():
                if self.log.once_more(self.minimal, "on a fresh graph", LIKELY).kind == "broken":
                    return stands
            self.log.eroded.add(self.held.pop())
            self.log.reuse = None
            self.now = _as_before(self.now, self.minimal)
            stands = False
        return stands

    def _may_stand(self) -> bool:
        enough = min(PASSES_MAX, max(REPRODUCE_MAX, passes_to_reject(self._rate(), MINIMAL_SURE)))
        return self.log.count(self.minimal).kept < enough and self.minimal not in self.log.aside

    def _confirm(self) -> None:
        """Fresh runs of the minimal plan, stepping back to the one before while it breaks far less often than the first."""
        while self.log.count(self.minimal).runs < self.confirmations:
            if self.minimal in self.log.aside:
                return
            self.log.once_more(self.minimal, "confirm", self._rate())
            while len(self.held) > 1 and self._is_eroded():
                self.log.eroded.add(self.held.pop())
                self.now = _as_before(self.now, self.minimal)

    def _is_eroded(self) -> bool:
        """Whether the minimal plan breaks far less often than what was found.

        The plans on the way were run once or twice each, which flatters them. So they only cast a doubt; then the minimal plan
        and the first of them are run more often, and these counts decide.
        """
        own, before, first = (
            self.log.count(self.minimal),
            self._pooled(self.held[:-1]),
            self.held[0],
        )
        enough = own.runs >= self.confirmations or (own.broke == 1 and own.runs > REPRODUCE_MAX)
        if not enough or on_the_way(before.broke, before.runs) < COMPARABLE:
            return False
        if not self._breaks_less_than(before, DOUBT if before.runs >= FEW_RUNS else 1.0):
            return False
        for plan in (self.minimal, first):
            while self.log.count(plan).runs < COMPARE_RUNS and plan not in self.log.aside:
                self.log.once_more(plan, "compare with the plan that reproduced it", self._rate())
        return self._breaks_less_than(self.log.count(first), BY_ACCIDENT)

    def _breaks_less_than(self, before: Count, accident: float) -> bool:
        """Whether the minimal plan's rate is below half of another one, by less of an accident than that."""
        broke, runs = self._own()
        if broke * before.runs >= ERODED * before.broke * runs:
            return False
        return chance_of_fewer(broke, runs, before.broke, before.runs) < accident

    @property
    def _control_plan(self) -> Plan:
        """The minimal plan without its faults, with its waits joined so that runs of equal plans count together."""
        return suspects(self.spec, self.minimal.without_faults()).without(frozenset()).plan

    def _control(self) -> None:
        control = self._control_plan
        while (done := self.log.count(control)).ever_broke + done.ever_kept < self.controls:
            if control in self.log.aside:
                return
            self.log.once_more(
                control, "control, without the faults", UNLIKELY, fresh=not done.kept
            )

    def _try_other_replicas(self) -> bool | None:
        other = _other_replicas(self.spec, self.minimal)
        if other == self.minimal or not feasible(self.spec, other):
            return None
        broken = self.log.breaks(other, self._passes_to_be_sure(), "with other replicas", EVEN)
        return None if other in self.log.aside else broken

    def result(self, *, complete: bool) -> Shrunk:
        """What is known now."""
        count, control = self.log.count(self.minimal), self.log.count(self._control_plan)
        left_open = self.minimal in self.log.aside
        return Shrunk(
            plan=self.minimal,
            broke=count.broke,
            runs=count.runs,
            control_broke=control.ever_broke,
            control_runs=control.ever_broke + control.ever_kept,
            needed=tuple(without_each(self.spec, self.minimal, self.log)),
            thresholds=tuple(thresholds(self.minimal, self.log)),
            any_replica=self.any_replica,
            live_runs=len(self.log.all),
            complete=complete and not left_open,
            confirmed=bool(self.held),
            journal=tuple(self.log.all),
        )


# --------------------------------------------------------------------------------------------------------- small parts


def _as_before(now: Suspects, plan: Plan) -> Suspects:
    """What is believed about the steps of a plan that was accepted earlier."""
    return now if now.plan == plan else suspects(now.spec, plan)


def _other_replicas(spec: GraphSpec, plan: Plan) -> Plan:
    """The plan with every replica that it names exchanged for the next one of its role."""

    def other(step: Step) -> Step:
        if isinstance(step, Aimed):
            return replace(step, index=(step.index + 1) % spec.role(step.role).replicas)
        return step

    return replace(plan, steps=tuple(other(step) for step in plan.steps))

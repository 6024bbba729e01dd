"""Tests of the facts that separate broken from kept runs of one plan, and of the rate of such facts by chance."""

from __future__ import annotations

import random

import pytest

from graphquake.machines.cases.wording import difference_text
from graphquake.machines.findings.explain import facts_of, separating

from support.made import Made, plan_of

pytestmark = pytest.mark.simulated


def young(age_s: float) -> Made:
    """A run with a kill that comes `age_s` after the victim became ready again."""
    made = Made(plan=plan_of("kill decode 0", "respawn decode 0", "wait 1.00 s", "kill decode 0"))
    made.steady(0.0, 1.0).step("kill decode 0", 1.0).step("respawn decode 0", 1.1, number=1)
    made.spawn("decode 0", 1.1, ready_s=1.5).step("wait 1.00 s", 2.1, number=2)
    made.ask(0.9, 3.0)
    return made.step("kill decode 0", 1.5 + age_s, number=3)


def test_facts_are_about_the_moments_of_the_steps() -> None:
    """Facts tell the requests in flight when a step began, and how long each replica had been ready again."""
    facts = facts_of(young(0.25).history())
    last = 'at "kill decode 0" (step 4)'
    assert facts[f"requests in flight {last}"] == 1
    assert facts[f"seconds since decode 0 was ready again {last}"] == 0.25
    assert facts[f"decode 0 was back {last}"] == 1
    assert facts['decode 0 was back at "kill decode 0" (step 1)'] == 0


def test_a_separating_fact_comes_with_its_counts() -> None:
    """If only kills soon after the victim's return break, the time since its return separates the runs, with its counts."""
    broken = [facts_of(young(0.1 + number / 100).history()) for number in range(6)]
    kept = [facts_of(young(0.5 + number / 10).history()) for number in range(6)]
    found = separating(broken, kept)
    wanted = 'seconds since decode 0 was ready again at "kill decode 0" (step 4) ≤ 0.15: 6 of 6 broken, 0 of 6 kept'
    assert wanted in map(difference_text, found)
    assert separating(kept, broken)[0].sign == "≥"


def test_too_few_runs_separate_nothing() -> None:
    """Two broken and two kept runs are too few to report any fact, and so are broken runs alone."""
    broken = [facts_of(young(0.1).history())] * 2
    kept = [facts_of(young(0.9).history())] * 2
    assert separating(broken, kept) == []
    assert separating(broken, []) == []


def test_chance_is_not_taken_for_a_difference() -> None:
    """Of 400 pairs of groups of runs that do not differ, at most 8% seem to be separated by a fact."""
    draw = random.Random(5)

    def group(runs: int) -> list[dict[str, float]]:
        return [{f"fact {n}": draw.random() for n in range(10)} for _ in range(runs)]

    separated = sum(bool(separating(group(7), group(5))) for _ in range(400))
    assert separated <= 0.08 * 400

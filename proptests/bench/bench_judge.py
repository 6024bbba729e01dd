"""Measure the shrinker and the search where their assumptions do not hold: `tox -e bench -- bench_judge`.

Each measurement is a function that returns its numbers and whether they are as wanted. `bench_shrink` stores them beside its own numbers.
Everything is simulated: no process is started.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from unittest import mock

from graphquake.harness.spec.plan import Burst, Kill, Plan, Respawn, Wait
from graphquake.harness.spec.steps.table import KINDS
from graphquake.machines.cases.corpus import Corpus
from graphquake.machines.findings.pipeline import FindingPipeline
from graphquake.machines.findings.rounds import Rounds
from graphquake.machines.plans import novelty
from graphquake.machines.runners.run_log import RunLog
from graphquake.machines.sessions.search import draw_plans, search
from graphquake.machines.shrinking.result import Shrunk
from graphquake.machines.shrinking.shrink import shrink
from graphquake.machines.shrinking.stats import wilson

from bench.costs import Costs
from bench.measured import row_of
from bench.reused import saved
from bench.ways import Ours
from support.made import plan_of
from support.sim_runner import Bug, SimRunner
from support.simulated import SHAPES, SPEC, Shape, Simulated, broken, failing

BY_NAME: Final = {shape.name: shape for shape in SHAPES}
RUNS_MAX: Final = 120
SEEDS: Final = 20
ERODED_SEARCHES: Final = 200
COVERED_SHRINKS: Final = 200
COVERED_RATES: Final = (0.3, 0.6, 0.9)
SEARCH_RUNS: Final = 120
CORRECT_PLANS: Final = 2_000
NOISY_SEARCHES: Final = 200
BEHIND: Final = plan_of("kill decode 0", "kill prefill 0")


@dataclass(frozen=True, slots=True)
class Further:
    """The result of one measurement: its numbers by name, whether they are as wanted, and a line for the report."""

    name: str
    is_met: bool
    text: str
    numbers: Mapping[str, float] = field(default_factory=dict)


class Each(Protocol):
    """A `map` that may work in several processes."""

    def __call__(self, one: Callable[[int], Any], seeds: Iterable[int], /) -> Iterable[Any]:
        """See `map`."""
        ...


@contextlib.contextmanager
def wrong_priors() -> Iterator[None]:
    """Swap the priors of the shrinker: kills become the least likely to be needed, waits the most likely."""
    wrong = sorted(kind.prior for kind in KINDS)
    with contextlib.ExitStack() as stack:
        for kind, share in zip(KINDS, wrong, strict=True):
            stack.enter_context(mock.patch.object(kind, "prior", share))
        yield


def wrong_prior() -> Further:
    """Measure the cost of a wrong prior: the ratio of the median runs (B) for each bug. At most 2 is wanted."""

    def median_runs(shape: Shape) -> float:
        way = Ours(Costs())
        rows = (
            row_of("ours", shape, 1.0, s, way(shape, failing(shape, s), Simulated(shape, s)))
            for s in range(SEEDS)
        )
        return statistics.median(row.sought for row in rows)

    right = {shape.name: median_runs(shape) for shape in SHAPES}
    with wrong_priors():
        ratios = {shape.name: median_runs(shape) / right[shape.name] for shape in SHAPES}
    worst = max(ratios, key=lambda name: ratios[name])
    text = f"wrong prior: {statistics.median(ratios.values()):.2f} times the runs, at most {ratios[worst]:.2f} ({worst}); wanted: at most 2"
    return Further("wrong prior", ratios[worst] <= 2, text, ratios)


def erosion() -> Further:
    """Measure whether lowered numbers lower the rate: a reported plan should break about as often as the plan it came from."""

    def rate(plan: Plan) -> float:
        most = max((s.requests for s in plan.steps if isinstance(s, Burst)), default=0)
        return 0.7 if most >= 20 else 0.1

    shape = BY_NAME["burst after respawn"]
    start = Plan((Kill("decode", 0), Wait(0.5), Respawn("decode", 0), Burst(60, 0.5)))
    ends = [
        _shrunk(shape, Simulated(shape, seed, rate, runs_max=200), start)
        for seed in range(ERODED_SEARCHES)
    ]
    confirmed = [one for one in ends if one.confirmed]
    good = sum(rate(one.plan) >= 0.5 for one in confirmed)
    share = good / len(confirmed)
    text = (
        f"erosion: {good} of {len(confirmed)} plans that were reported ({share:.1%}) have a true rate of at least .5; wanted: 95%; "
        f"{len(ends) - len(confirmed)} of {len(ends)} searches ended unconfirmed"
    )
    numbers = {"good": good, "reported": len(confirmed), "searches": len(ends)}
    return Further("erosion", share >= 0.95, text, numbers)


def _shrunk(shape: Shape, graph: Simulated, plan: Plan) -> Shrunk:
    return shrink(SPEC, plan, broken(shape, plan), graph)


def coverage() -> Further:
    """Measure how often the reported interval contains the true rate."""
    chance = random.Random("coverage")
    covered = without_first = unconfirmed = above = below = seed = 0
    while seed - unconfirmed < COVERED_SHRINKS:
        shape, rate = SHAPES[seed % len(SHAPES)], chance.choice(COVERED_RATES)
        graph = Simulated(shape, 1000 + seed, rate, runs_max=RUNS_MAX)
        one = _shrunk(shape, graph, failing(shape, seed))
        seed += 1
        if not one.confirmed:
            unconfirmed += 1
            continue
        low, high = wilson(one.broke, one.runs)
        covered += low <= rate <= high
        above += low > rate
        below += high < rate
        # The run that accepted the plan was selected because it broke.
        low, high = wilson(one.broke - 1, one.runs - 1)
        without_first += low <= rate <= high
    text = (
        f"coverage: {covered} of {COVERED_SHRINKS} intervals hold the true rate (too high {above}, too low {below}); wanted: 182; "
        f"without the run that accepted the plan {without_first}; {unconfirmed} more shrinks were unconfirmed"
    )
    numbers = {
        "covered": covered,
        "too high": above,
        "too low": below,
        "without the accepting run": without_first,
        "unconfirmed": unconfirmed,
    }
    return Further("coverage", covered >= 182, text, numbers)


def throughput() -> Further:
    """Measure how many plans a search judges each minute if a run takes no time: with its choice of plans, and with every drawn plan."""
    drawn, chosen, findings = _a_minute()
    with mock.patch.object(novelty, "LOOK_MAX", 0):
        _, all_run, more = _a_minute()
    numbers = {"drawn a minute": drawn, "run a minute": chosen, "run a minute, all": all_run}
    text = (
        f"throughput: {all_run:.0f} plans a minute where each is run, wanted: 1000; as the search chooses, {drawn:.0f} are drawn "
        f"and {chosen:.0f} run"
    )
    return Further("throughput", all_run >= 1000 and findings + more == 0, text, numbers)


def _a_minute() -> tuple[float, float, int]:
    """Search a correct graph. Returns the plans drawn and run each minute, and the number of findings."""
    runner = SimRunner([], seed=1, runs_max=SEARCH_RUNS)
    with tempfile.TemporaryDirectory() as folder:
        rounds = Rounds(
            FindingPipeline(runner, Corpus(Path(folder)), RunLog(), results_dir=Path(folder))
        )
        begun_s = time.monotonic()
        search(rounds, 1, findings_max=1)
        took_s = time.monotonic() - begun_s
    a_minute = 60 / took_s
    return (
        len(rounds.log.plans) * a_minute,
        len(runner.runs) * a_minute,
        len(rounds.pipeline.findings),
    )


def no_false_findings() -> Further:
    """Run plans on a graph without a bug. Any violation is an error of this project."""
    runner = SimRunner([], seed=2)
    # One round draws about half of the plans. It draws some of them more than once, so several rounds are needed.
    rounds = (draw_plans(runner.spec, number, CORRECT_PLANS) for number in itertools.count(2))
    plans = list(itertools.islice(_distinct(rounds), CORRECT_PLANS))
    found = sum(runner.run(plan, "search").verdict.kind != "kept" for plan in plans)
    text = f"no bug: {found} of {len(plans)} plans on a correct graph bring a finding; wanted: 0"
    return Further("no bug", found == 0, text, {"plans": len(plans), "found": found})


def _distinct(rounds: Iterable[list[Plan]]) -> Iterator[Plan]:
    """Yield each plan once, in the order in which they were drawn."""
    seen: set[Plan] = set()
    for plan in itertools.chain.from_iterable(rounds):
        if plan not in seen:
            seen.add(plan)
            yield plan


def behind_a_case(each: Each = map) -> Further:
    """Measure the live runs until a second bug shows whose plan contains a known case of one step, with and without the first bug."""
    ratios = list(each(_behind, range(1, SEEDS + 1)))
    good = sum(ratio <= 2 for ratio in ratios)
    text = (
        f"behind a case: {good} of {SEEDS} second bugs are met in at most twice the runs (median {statistics.median(ratios):.2f} times, "
        f"at most {max(ratios):.2f}); wanted: 18"
    )
    return Further("behind a case", good >= 18, text, {"good": good, "worst": max(ratios)})


def _behind(seed: int) -> float:
    """Return the ratio of the runs with the first bug to those without it, for one seed."""
    first, second = Bug(plan_of("kill decode 0"), "wrong tokens"), Bug(BEHIND, "tokens lost")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rounds = Rounds(
            FindingPipeline(
                SimRunner([first]), Corpus(folder / "with"), RunLog(), results_dir=folder
            )
        )
        search(rounds, 1, findings_max=1)
        alone = _runs_until_met(SimRunner([second]), seed, folder / "without")
        return _runs_until_met(SimRunner([first, second]), seed, folder / "with") / alone


def _runs_until_met(runner: SimRunner, seed: int, cases: Path) -> float:
    """Return the live runs of a search until its first finding, without the shrink, or infinity if there is none."""
    rounds = Rounds(FindingPipeline(runner, Corpus(cases), RunLog(), results_dir=cases))
    search(rounds, seed, findings_max=1)
    if not rounds.pipeline.findings:
        return math.inf
    return rounds.log.live.total() - rounds.pipeline.findings[0].case.cost.live_runs


def noise(each: Each = map) -> Further:
    """Search a graph whose bug shows in three of ten runs. A search that ends with anything but findings or budget is an error."""
    ended = Counter(each(_noisy, range(NOISY_SEARCHES)))
    told = ", ".join(f"{how} {count}" for how, count in sorted(ended.items()))
    text = f"noise: {NOISY_SEARCHES} searches at a rate of .3 ended by {told}; wanted: no error"
    return Further("noise", ended.keys() <= {"findings", "budget"}, text, dict(ended))


def _noisy(seed: int) -> str:
    """Return what ends one search. Every drawn plan is run, so that plans whose run was kept come again."""
    runner = SimRunner([Bug(plan_of("kill decode 0"), "wrong tokens", 0.3)], seed=seed, runs_max=60)
    with tempfile.TemporaryDirectory() as name, mock.patch.object(novelty, "LOOK_MAX", 0):
        rounds = Rounds(
            FindingPipeline(runner, Corpus(Path(name)), RunLog(), results_dir=Path(name))
        )
        try:
            return search(rounds, seed, findings_max=1)
        except Exception as error:  # noqa: BLE001 - every error is counted
            return type(error).__name__


def reuse() -> Further:
    """Measure the time saved by reusing graphs that start slowly, at rates 1 and .6."""
    often, seldom = saved(1.0, SEEDS), saved(0.6, SEEDS)
    text = (
        f"used graphs: {often.shrinking:.2f} of the time of all-fresh while shrinking, {often.all:.2f} with confirming runs "
        f"(rate .6: {seldom.shrinking:.2f}, {seldom.all:.2f}), at {often.minimal:.1%} step-minimal for {often.minimal_fresh:.1%} "
        f"(rate .6: {seldom.minimal:.1%} for {seldom.minimal_fresh:.1%}); wanted: at most .60"
    )
    numbers = {"rate 1": asdict(often), "rate .6": asdict(seldom)}
    flat = {f"{rate}, {name}": value for rate, of in numbers.items() for name, value in of.items()}
    return Further("used graphs", often.shrinking <= 0.6, text, flat)


MEASUREMENTS: Final[tuple[Callable[[], Further], ...]] = (
    wrong_prior,
    erosion,
    coverage,
    throughput,
    no_false_findings,
    reuse,
)
# Each of these makes many searches, which `each` may spread over processes.
SPREAD: Final[tuple[Callable[[Each], Further], ...]] = (behind_a_case, noise)


def main() -> None:
    """Run every measurement and print its numbers. Exit with 1 if one of them is not as wanted."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    all_of_it = [one() for one in MEASUREMENTS] + [one(map) for one in SPREAD]
    print("\n".join(one.text for one in all_of_it))
    sys.exit(not all(one.is_met for one in all_of_it))


if __name__ == "__main__":
    main()

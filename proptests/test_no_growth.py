"""The promise `no_growth`: a trend over deaths, told apart from warm-up, load and time."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from graphquake.harness.history.events import Measured
from graphquake.harness.observation.resource_usage import Usage
from graphquake.harness.promises.replicas.no_growth import AFTER_MIN, DEATHS_MIN, grows_with
from graphquake.harness.spec.replica import Replica
from graphquake.machines.plans.sweep import sweep

from support.made import Made, says, spec_of

pytestmark = pytest.mark.simulated

PERIOD_S = 2.0
FRONTEND = Replica("frontend", 0)


def churn(
    threads: Callable[[int, float], float],
    deaths: int = 8,
    *,
    after_s: float = 5.0,
    mib: float = 0.0,
) -> Made:
    """Return a run in which decode 1 dies every two seconds and comes back.

    Args:
        threads: the threads of the frontend, by the number of deaths so far and the time in seconds.
        deaths: the number of deaths.
        after_s: the time from the last death to the end of the load.
        mib: the memory of the frontend after each death, in MiB, in addition to 100 MiB.
    """
    made = Made(spec_of(promises={"throughput": False}))
    end_s = 1.0 + deaths * PERIOD_S + after_s - PERIOD_S
    made.steady(0.0, end_s, every_s=0.25).phase("drain", end_s)
    for number in range(deaths):
        at_s = 1.0 + number * PERIOD_S
        made.step("kill decode 1", at_s, number=number)
        made.spawn("decode 1", at_s + 0.2, ready_s=at_s + 0.6)
    at_s = 0.1
    while at_s < end_s:
        died = max(0, min(deaths, int((at_s - 1.0) / PERIOD_S) + 1)) if at_s >= 1.0 else 0
        count, memory = round(threads(died, at_s)), round((100 + mib * died) * 2**20)
        made.events.append(Measured(at_s, FRONTEND, 0.1, memory, threads=count, files=20))
        at_s += 0.9
    return made


def leak(died: int, at_s: float) -> float:
    """One thread more for each death."""
    return 10 + died


def noisy_leak(died: int, at_s: float) -> float:
    """The same, beside threads that come and go."""
    return 10 + died + at_s * 7 % 2


def constant(died: int, at_s: float) -> float:
    """No growth at all."""
    return 10


def warm_up(died: int, at_s: float) -> float:
    """A pool that fills, and stays so."""
    return 10 + min(died, 3)


def with_time(died: int, at_s: float) -> float:
    """A growth that goes on when nobody dies any more."""
    return 10 + at_s / 2


def up_and_down(died: int, at_s: float) -> float:
    """Much load, and none, by turns."""
    return 10 + at_s * 10 % 20


@pytest.mark.parametrize(
    ("threads", "broken"),
    [
        (leak, True),
        (noisy_leak, True),
        (constant, False),
        (warm_up, False),
        (with_time, False),
        (up_and_down, False),
    ],
)
def test_only_a_growth_with_the_deaths_counts(
    threads: Callable[[int, float], float], *, broken: bool
) -> None:
    """One thread more for each death breaks the promise. Warm-up, time and load do not."""
    expected = ("broken", ("no_growth / frontend threads",)) if broken else ("kept", ())
    assert says(churn(threads)) == expected


@pytest.mark.parametrize(("mib", "broken"), [(7.0, False), (9.0, True)])
def test_memory_has_a_bound_of_its_own(mib: float, *, broken: bool) -> None:
    """A replica may keep `memory_mib` for each death: 8 by default."""
    made = churn(constant, mib=mib)
    assert says(made)[1] == (("no_growth / frontend MiB",) if broken else ())


def test_a_trend_needs_enough_deaths_and_samples() -> None:
    """Five deaths tell nothing, nor does a run that ends right after the last one."""
    assert says(churn(leak, DEATHS_MIN))[0] == "broken"
    assert says(churn(leak, DEATHS_MIN - 1))[0] == "kept"
    assert says(churn(leak, after_s=0.9 * AFTER_MIN - 1))[0] == "kept"


def test_noise_is_no_trend() -> None:
    """Of 6,000 replicas whose threads go up and down by chance, with and without memory of the last value, none is blamed."""
    draw = random.Random(1)
    for number in range(6_000):
        deaths_s = [1.0 + PERIOD_S * one for one in range(draw.choice([7, 8, 12]))]
        value, samples = 20.0, []
        for tick in range(int((deaths_s[-1] + 5.0) / 0.9)):
            other = draw.uniform(10, 30)
            value = (value + other) / 2 if number % 2 else other
            samples.append(Measured(0.9 * tick, FRONTEND, 0.1, 0, threads=round(value)))
        assert not grows_with(samples, deaths_s, lambda m: float(m.threads), 0.5, 3.0), number


def test_a_search_has_a_plan_for_it() -> None:
    """One plan of the second sweep kills a replica of each role of several often enough. Without the promise there is none."""
    lines = [plan.one_line() for plan in sweep(spec_of(faults=["all"])).seldom]
    churns = [line for line in lines if "8 times" in line]
    assert churns == ["crash decode 1 8 times, 2000 ms after each start; stay 5.00 s"]
    off = sweep(spec_of(faults=["all"], promises={"no_growth": False})).seldom
    assert not any("8 times" in plan.one_line() for plan in off)


def test_a_sample_has_threads_and_open_files(tmp_path: Path) -> None:
    """One more thread and one more open file are seen."""
    usage, ours, over = Usage(), {FRONTEND: [os.getpid()]}, threading.Event()
    (before,) = usage.look(1.0, ours, {}, {})
    with (tmp_path / "file").open("w"):
        thread = threading.Thread(target=over.wait)
        thread.start()
        (after,) = usage.look(2.0, ours, {}, {})
        over.set()
        thread.join()
    assert (after.threads, after.files) == (before.threads + 1, before.files + 1)

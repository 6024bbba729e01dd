"""The promise `no_growth`: a living replica does not grow with each death of another one.

A router may keep something for each replica that it ever knew: a thread, a connection, a table. Each death then leaves a little more of it,
and after days the router fails. One run can't show that by the size of a replica, because a replica warms up, and holds more under load.
It shows it by a trend. So the promise is judged only after `DEATHS_MIN` deaths of one role, and blames a growth only if all of this holds:

- The replica lived all the time, and held more after nearly every death than after the one before. Levels are minima, because connections
  come and go. The level after the first death does not count: a program may keep the resources of its first recovery.
- It grew by at least the bound for each death, and by more than twice the range of its values between two deaths.
- It hardly grew after the last death. A growth that goes on belongs to the time or to the load: a cache, or a log.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Final

from graphquake.harness.history.events import Died, Measured
from graphquake.harness.history.history import History
from graphquake.harness.promises.availability import Availability
from graphquake.harness.promises.verdict import Violation, violation_in
from graphquake.harness.spec.replica import Replica

# The number of deaths of one role, of levels after the first death, and of samples after the last death, that a judgement needs.
DEATHS_MIN: Final = 7
LEVELS_MIN: Final = 6
AFTER_MIN: Final = 3
# Samples this soon after a death do not count, in seconds: others are busy with it.
SETTLE_S: Final = 0.3
# The share of pairs of levels of which the later one must be higher. Of six levels, one pair may be equal or falling.
RISING_MIN: Final = 0.9
# The least growth for each death on average, in threads or open files. A growth of fewer than `COUNT_MIN` in all is not judged.
PER_DEATH: Final = 0.5
COUNT_MIN: Final = 3.0
# The growth after the last death may have this part of the rate at which the replica grew before.
GOES_ON_MAX: Final = 0.25
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Level:
    """The least value of a quantity between two deaths.

    Attributes:
        deaths: the number of deaths before.
        at_s: the time of the sample.
    """

    deaths: int
    at_s: float
    value: float


def no_growth(history: History, up: Availability) -> Iterator[Violation]:
    """No replica that lives holds more threads, open files or memory after each death of a role."""
    del up
    load_ends_s = history.phase_began_s("drain")
    if load_ends_s is None:
        return
    for role in history.spec.roles:
        deaths_s = [one.at_s for one in history.of(Died) if one.replica.role == role.name]
        if len(deaths_s) < DEATHS_MIN:
            continue
        for replica in _that_lived(history, deaths_s[0]):
            samples = [
                m for m in history.of(Measured) if m.replica == replica and m.at_s < load_ends_s
            ]
            for what, value, per_death, least in _quantities(history):
                if levels := grows_with(samples, deaths_s, value, per_death, least):
                    first, last = levels[0], levels[-1]
                    seen = (
                        f"{replica} held {first.value:g} {what} after {first.deaths} deaths of {role.name}, "
                        f"and {last.value:g} after {last.deaths}"
                    )
                    yield violation_in(
                        history, "no_growth", f"{replica.role} {what}", last.at_s, seen
                    )


def _quantities(
    history: History,
) -> Iterator[tuple[str, Callable[[Measured], float], float, float]]:
    """Yield for each quantity its name, its value in a sample, the least growth for each death, and the least growth in all."""
    memory_mib = history.spec.promises.growth_mib
    yield "threads", lambda m: float(m.threads), PER_DEATH, COUNT_MIN
    yield "open files", lambda m: float(m.files), PER_DEATH, COUNT_MIN
    yield "MiB", lambda m: round(m.rss_bytes / _MIB), memory_mib, memory_mib


def _that_lived(history: History, since_s: float) -> Iterator[Replica]:
    died = {one.replica for one in history.of(Died) if one.at_s >= since_s}
    return (one for one in history.spec.replicas() if one not in died)


def grows_with(
    samples: Sequence[Measured],
    deaths_s: Sequence[float],
    value: Callable[[Measured], float],
    per_death: float,
    least: float,
) -> list[Level]:
    """Return the levels of a quantity that grows with the deaths, as the module describes, or nothing if it does not.

    Args:
        samples: the samples of one replica, in order of time.
        deaths_s: the times of the deaths.
        value: the quantity in a sample.
        per_death: the least growth for each death, on average.
        least: the least growth in all.
    """
    levels, noise, after = list[Level](), 0.0, list[tuple[float, float]]()
    for deaths, (begin_s, end_s) in enumerate(pairwise([*deaths_s, math.inf]), start=1):
        after = [(m.at_s, value(m)) for m in samples if begin_s + SETTLE_S <= m.at_s < end_s]
        if after and deaths > 1:
            lowest, at_s = min((level, at_s) for at_s, level in after)
            levels.append(Level(deaths, at_s, lowest))
            noise = max(noise, max(level for _, level in after) - lowest)
    if len(levels) < LEVELS_MIN or len(after) < AFTER_MIN:
        return []
    first, last = levels[0], levels[-1]
    grown = last.value - first.value
    rising = [later.value > earlier.value for earlier, later in combinations(levels, 2)]
    enough = max(per_death * (last.deaths - first.deaths), least, 2 * noise)
    if grown < enough or sum(rising) < RISING_MIN * len(rising):
        return []
    (begin_s, begin), (end_s, end) = after[0], after[-1]
    rate = grown / (last.at_s - first.at_s)
    return levels if end - begin <= GOES_ON_MAX * rate * (end_s - begin_s) else []

"""Read the table `[promises]` of a graph file: the promises that the graph makes, and their bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from graphquake.harness.spec.panics import read_patterns
from graphquake.harness.spec.table import Table

# The least value of `within_s` of `views_agree`. The run samples the graph's lists and probes, so chance could break a smaller bound.
AGREE_MIN_S: Final = 1.0

InFlight: TypeAlias = Literal["like others", "must survive", "may fail"]
# Before "like others" existed, this word meant what "like others" means. Old run folders and old cases keep that meaning.
_OLD_WORD: Final = "must survive"

BUILT_IN_PROMISES: Final = (
    "ends", "answers", "honest", "drain", "error_window", "recovery", "throughput", "collapse",
    "refusals_are_cheap", "blast_radius", "no_panic", "no_growth", "views_agree", "no_leak",
)  # fmt: skip
# The promises that a graph makes only if its file names them. All others are made unless the file switches them off.
ONLY_IF_NAMED: Final = frozenset({"drain"})


@dataclass(frozen=True, slots=True)
class Promises:
    """The promises that a graph makes, and their bounds.

    The steady phase of a run begins when the graph has recovered, and lasts until the load ends.

    Attributes:
        made: the names of the built-in promises that are judged.
        stall_s: `ends`: the time for which a request may get no byte while a path is up, in seconds.
        oracle: `answers`: `none`, or a function as `module:function`. The function gets (prompt, max_tokens) and returns the right answer.
        drain_s: `drain`: the time after SIGTERM in which no admitted request may be lost, in seconds (`within_s` in the file). 0 means
            `stop_s` of the role.
        window_s: `error_window`: W, the time after a fault in which failures are excused, in seconds.
        in_flight: `error_window`: the rule for requests that are in flight when a fault begins. `like others`: they are excused like all
            requests in the window, and count towards its limit. `must survive`: no fault of another role than the entry excuses them, if
            a path is up. `may fail`: they are excused, and do not count towards the limit.
        spare_failures: `error_window`: open loop: the number of failures that a fault excuses in addition to the rate times its window.
        first_ok_s: `recovery`: R1, the time from heal to the first success, in seconds.
        all_ok_s: `recovery`: R2, the time from heal after which no request may fail, in seconds.
        success: `throughput`: the graph may shed at most 1 minus this share of the requests in the steady phase, 0 to 1.
        goodput: `throughput`: the number of requests that must end for each one that begins in the steady phase, 0 to 1.
        slower: `throughput`: the largest ratio of the p90 latency in the steady phase to the p90 latency before the first disturbance.
        well_s: `collapse`: the time after bursts, faults and heal in which the graph must become well, in seconds (`within_s` in the file).
        well_slower: `collapse`: the largest ratio of the median latency at the end of the load to the largest latency before the plan
            (`slower` in the file).
        refusals_slower: `refusals_are_cheap`: the largest ratio of the median latency beside requests that must be refused to the largest
            latency before them (`slower` in the file).
        panics: `no_panic`: regular expressions of forbidden log lines (`patterns` in the file). If there are none, the default ones count.
        not_panics: `no_panic`: regular expressions of log lines that do not count (`ignore` in the file).
        growth_mib: `no_growth`: the memory that a replica may keep for each death of another one, in MiB (`memory_mib` in the file).
        agree_s: `views_agree`: the longest time for which a list or a readiness probe may be wrong, in seconds (`within_s` in the file).
        grace_s: `no_leak`: the time after the end of the load in which every leak must disappear, in seconds.
        gauges: `no_leak`: the names of Prometheus gauges that must be 0 after the load.
        extra: the user's own promises, each a function as `module:function`.
        from_file: the bounds that the file sets, as `promise.key`. All other bounds are defaults.
    """

    made: tuple[str, ...]
    stall_s: float = 3.0
    oracle: str = "none"
    drain_s: float = 0.0
    window_s: float = 2.0
    in_flight: InFlight = "like others"
    spare_failures: int = 2
    first_ok_s: float = 3.0
    all_ok_s: float = 5.0
    success: float = 0.99
    goodput: float = 0.9
    slower: float = 1.5
    well_s: float = 5.0
    well_slower: float = 2.0
    refusals_slower: float = 2.0
    panics: tuple[str, ...] = ()
    not_panics: tuple[str, ...] = ()
    growth_mib: float = 8.0
    agree_s: float = 5.0
    grace_s: float = 5.0
    gauges: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    from_file: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all promises: the built-in ones, then the user's own, each by the name of its function."""
        return (*self.made, *map(own_name, self.extra))

    def source(self, bound: str) -> str:
        """Return `file` if the graph file sets the bound, else `default`. The bound is named as `promise.key`."""
        return "file" if bound in self.from_file else "default"


def own_name(extra: str) -> str:
    """Return the name of a user's own promise: that of its function, without the module."""
    return extra.rpartition(":")[2]


def as_meant_then(in_flight: object) -> object:
    """The present word for a value of `in_flight` that an old run folder or an old case holds."""
    return "like others" if in_flight == _OLD_WORD else in_flight


def read_promises(table: Table) -> Promises:
    """Read the promises of a graph file.

    Raises:
        InputError: if a value is wrong. It names the key, the value that was found and a correct one.
    """
    made = tuple(
        name
        for name in BUILT_IN_PROMISES
        if not table.is_false(name) and (name in table or name not in ONLY_IF_NAMED)
    )
    parts = {name: table.table(name) for name in made}
    empty = Table(table.source, {})

    def part(name: str) -> Table:
        return parts.get(name, empty)

    def seconds(name: str, key: str, default: float) -> float:
        return part(name).number(key, default, at_least=0.0, at_most=3600)

    default = Promises(made)
    window = part("error_window")
    promises = Promises(
        made=made,
        stall_s=seconds("ends", "stall_s", default.stall_s),
        oracle=part("answers").text("oracle", default.oracle),
        drain_s=seconds("drain", "within_s", default.drain_s),
        window_s=seconds("error_window", "window_s", default.window_s),
        in_flight=window.choice("in_flight", get_args(InFlight), default.in_flight),
        spare_failures=window.whole("spare_failures", default.spare_failures),
        first_ok_s=seconds("recovery", "first_ok_s", default.first_ok_s),
        all_ok_s=seconds("recovery", "all_ok_s", default.all_ok_s),
        success=part("throughput").number("success", default.success, at_most=1.0),
        goodput=part("throughput").number("goodput", default.goodput, at_most=1.0),
        slower=part("throughput").number("slower", default.slower, at_least=1.0, at_most=1000.0),
        well_s=seconds("collapse", "within_s", default.well_s),
        well_slower=part("collapse").number(
            "slower", default.well_slower, at_least=1.0, at_most=1000.0
        ),
        refusals_slower=part("refusals_are_cheap").number(
            "slower", default.refusals_slower, at_least=1.0, at_most=1000.0
        ),
        panics=read_patterns(part("no_panic"), "patterns"),
        not_panics=read_patterns(part("no_panic"), "ignore"),
        growth_mib=part("no_growth").number(
            "memory_mib", default.growth_mib, at_least=1.0, at_most=1e6
        ),
        agree_s=part("views_agree").number(
            "within_s", default.agree_s, at_least=AGREE_MIN_S, at_most=3600
        ),
        grace_s=seconds("no_leak", "grace_s", default.grace_s),
        gauges=part("no_leak").texts("gauges"),
        extra=table.texts("extra"),
        from_file=frozenset(f"{name}.{key}" for name, sub in parts.items() for key in sub),
    )
    for sub in parts.values():
        sub.done()
    _check(promises, table, part)
    table.done()
    return promises


def _check(promises: Promises, table: Table, part: Callable[[str], Table]) -> None:
    """Check the rules that concern several keys."""
    if promises.oracle != "none" and ":" not in promises.oracle:
        raise part("answers").error(
            "oracle", f'found "{promises.oracle}", expected "none" or "module:function"'
        )
    twice = [name for name, count in Counter(promises.names).items() if count > 1]
    if twice:
        raise table.error(
            "extra",
            f'found more than one promise with the name "{twice[0]}", expected different names',
        )
    if promises.all_ok_s < promises.first_ok_s:
        raise part("recovery").error(
            "all_ok_s",
            f"found {promises.all_ok_s:g}, expected at least first_ok_s ({promises.first_ok_s:g})",
        )

"""Which promises a graph makes, and their bounds; read from the `[promises]` of its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from graphquake.harness.spec.table import Table

# Less could be an accident of the two moments at which the graph was looked at.
AGREE_MIN_S: Final = 1.0

InFlight: TypeAlias = Literal["must survive", "may fail"]

BUILT_IN_PROMISES: Final = (
    "ends", "answers", "error_window", "recovery", "throughput", "blast_radius", "views_agree", "no_leak",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Promises:
    """Which promises a graph makes, and their bounds.

    Attributes:
        made: names of the promises that are judged.
        stall_s: `ends`: no request goes without a byte for this long while a path was there.
        oracle: `answers`: `none`, or `module:function` that gives the right text of (prompt, max_tokens).
        window_s: `error_window`: W, how long after a fault failures are excused.
        in_flight: whether a request in flight on a victim has to survive.
        first_ok_s: `recovery`: R1, the first success after healing.
        all_ok_s: `recovery`: R2, after which nothing fails any more.
        success: `throughput`: the share of requests that must not be shed in the steady phase, 0 to 1.
        goodput: `throughput`: how many requests must end for each that begins, while the graph is steady.
        slower: `throughput`: by what factor the 90th percentile of the latency may be above the baseline's.
        agree_s: `views_agree`: how long what the graph says of itself may differ from what is.
        grace_s: `no_leak`: how long things may take to be gone after the load ended.
        gauges: `no_leak`: Prometheus gauges that are 0 at rest.
        extra: promises of the user's own, `module:name`.
        from_file: the bounds that the file sets (the rest are defaults).
    """

    made: tuple[str, ...]
    stall_s: float = 3.0
    oracle: str = "none"
    window_s: float = 2.0
    in_flight: InFlight = "must survive"
    first_ok_s: float = 3.0
    all_ok_s: float = 5.0
    success: float = 0.99
    goodput: float = 0.9
    slower: float = 1.5
    agree_s: float = 5.0
    grace_s: float = 5.0
    gauges: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    from_file: frozenset[str] = frozenset()

    def source(self, bound: str) -> str:
        """Where a bound comes from: `file` or `default`."""
        return "file" if bound in self.from_file else "default"


def read_promises(table: Table) -> Promises:
    """The promises of a graph file.

    Raises:
        InputError: says which key is wrong, what was found and what would be right.
    """
    made = tuple(name for name in BUILT_IN_PROMISES if not table.is_false(name))
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
        window_s=seconds("error_window", "window_s", default.window_s),
        in_flight=window.choice("in_flight", get_args(InFlight), default.in_flight),
        first_ok_s=seconds("recovery", "first_ok_s", default.first_ok_s),
        all_ok_s=seconds("recovery", "all_ok_s", default.all_ok_s),
        success=part("throughput").number("success", default.success, at_most=1.0),
        goodput=part("throughput").number("goodput", default.goodput, at_most=1.0),
        slower=part("throughput").number("slower", default.slower, at_least=1.0, at_most=1000.0),
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
    if promises.oracle != "none" and ":" not in promises.oracle:
        raise part("answers").error(
            "oracle", f'found "{promises.oracle}", expected "none" or "module:function"'
        )
    if promises.all_ok_s < promises.first_ok_s:
        raise part("recovery").error(
            "all_ok_s", f"found {promises.all_ok_s:g}, less than first_ok_s"
        )
    table.done()
    return promises

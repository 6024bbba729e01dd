"""What servers say of themselves in Prometheus's text format (OpenMetrics's lines are the same)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

from graphquake.harness.spec.table import Table

_SAMPLE: Final = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{.*\})?\s+(\S+)", re.MULTILINE)
# By what names servers tell how many requests they work on, how many wait, and which share of their KV cache is taken.
KNOWN_GAUGES: Final[Mapping[str, tuple[str, ...]]] = {
    "in_flight": (
        "vllm:num_requests_running",
        "sglang:num_running_reqs",
        "dynamo_frontend_inflight_requests",
        "dynamo_component_inflight_requests",
        "reference_in_flight",
    ),
    "waiting": (
        "vllm:num_requests_waiting",
        "sglang:num_queue_reqs",
        "reference_waiting",
    ),
    "kv_usage": (
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "sglang:token_usage",
        "reference_kv_usage",
    ),
}


def read_gauges(table: Table) -> dict[str, tuple[str, ...]]:
    """The `[gauges]` of a graph file: names of its own for what is told under known ones; they come first.

    Raises:
        InputError: says which key is wrong, what was found and what would be right.
    """
    found = {what: (*table.texts(what), *known) for what, known in KNOWN_GAUGES.items()}
    table.done()
    return found


def _series(text: str, names: Iterable[str]) -> dict[str, list[float]]:
    """The values of the gauges of those names, one for each set of labels; left out if there is none."""
    wanted, found = set(names), dict[str, list[float]]()
    for name, value in _SAMPLE.findall(text):
        if name in wanted:
            try:
                number = float(value)
            except ValueError:
                continue
            if not math.isnan(number):
                found.setdefault(name, []).append(number)
    return found


def gauges_in(text: str, names: Iterable[str]) -> dict[str, float]:
    """The gauges of those names in Prometheus's text format, each summed over its labels; left out if there is none."""
    return {name: sum(values) for name, values in _series(text, names).items()}


def load_in(text: str, gauges: Mapping[str, Iterable[str]]) -> dict[str, float]:
    """What a page of metrics says about a replica's load.

    Args:
        text: Prometheus's text format.
        gauges: for `in_flight`, `waiting` and `kv_usage` the names under which it may stand; the first that is there counts.
    """
    found = {}
    for what, names in gauges.items():
        there = _series(text, names)
        values = next((there[name] for name in names if name in there), None)
        if values is not None:
            # A share of what each engine has is no sum.
            found[what] = sum(values) / (len(values) if what == "kv_usage" else 1)
    return found

"""Metrics of servers in Prometheus text format. The sample lines of OpenMetrics have the same form."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

from graphquake.harness.spec.table import Table

_SAMPLE: Final = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{.*\})?\s+(\S+)", re.MULTILINE)
# The names of known servers for the requests in progress, the requests that wait, and the used share of the KV cache.
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
    """Read `[gauges]` of a graph file: further names for known gauges. They come before the known names.

    Raises:
        InputError: if a value is wrong. It names the key, the value that was found and a correct one.
    """
    found = {what: (*table.texts(what), *known) for what, known in KNOWN_GAUGES.items()}
    table.done()
    return found


def _series(text: str, names: Iterable[str]) -> dict[str, list[float]]:
    """Return the values of these gauges, one for each set of labels. Gauges that are absent are left out."""
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
    """Return these gauges from a text in Prometheus format, each summed over its labels. Gauges that are absent are left out."""
    return {name: sum(values) for name, values in _series(text, names).items()}


def load_in(text: str, gauges: Mapping[str, Iterable[str]]) -> dict[str, float]:
    """Return the load of a replica from its page of metrics.

    Args:
        text: the page, in Prometheus text format.
        gauges: the possible names of `in_flight`, `waiting` and `kv_usage`. The first name on the page counts.
    """
    found = {}
    for what, names in gauges.items():
        there = _series(text, names)
        values = next((there[name] for name in names if name in there), None)
        if values is not None:
            # The shares of several engines have a mean, not a sum.
            found[what] = sum(values) / (len(values) if what == "kv_usage" else 1)
    return found

"""Read the metrics of servers: pages in Prometheus text format. OpenMetrics writes its sample lines in the same form."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

from graphquake.harness.spec.table import Table

_SAMPLE: Final = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{.*\})?\s+(\S+)", re.MULTILINE)
# The gauge names that known servers use for three values. `in_flight` is the number of requests in progress, `waiting` is the number of
# requests that wait, and `kv_usage` is the used share of the KV cache, 0 to 1.
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
    """Read the table `[gauges]` of a graph file, which gives more names for the values in `KNOWN_GAUGES`.

    Returns:
        The gauge names of each value. Names from the file come before the known names.

    Raises:
        InputError: if a value is wrong. It names the key, the value that was found and a correct one.
    """
    found = {what: (*table.texts(what), *known) for what, known in KNOWN_GAUGES.items()}
    table.done()
    return found


def _series(text: str, names: Iterable[str]) -> dict[str, list[float]]:
    """Return the values of some gauges by name, with one value for each set of labels. A gauge that the text lacks is left out."""
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
    """Return the values of some gauges by name, each summed over its sets of labels. A gauge that the text lacks is left out.

    Args:
        text: a page in Prometheus text format.
        names: the names of the gauges.
    """
    return {name: sum(values) for name, values in _series(text, names).items()}


def load_in(text: str, gauges: Mapping[str, Iterable[str]]) -> dict[str, float]:
    """Return the load of a replica from its page of metrics: `in_flight`, `waiting` and `kv_usage`, as far as the page has them.

    Args:
        text: the page, in Prometheus text format.
        gauges: the possible gauge names of each value. If the page has several of them, the first one in this order counts.
    """
    found = {}
    for what, names in gauges.items():
        there = _series(text, names)
        values = next((there[name] for name in names if name in there), None)
        if values is not None:
            # `kv_usage` is a share, so the values of several engines are averaged, not summed.
            found[what] = sum(values) / (len(values) if what == "kv_usage" else 1)
    return found

"""Tests of the load that servers report, under several names."""

from __future__ import annotations

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.spec.metrics import KNOWN_GAUGES, gauges_in, load_in

from support.made import spec_of

pytestmark = pytest.mark.simulated

VLLM = """
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
vllm:e2e_request_latency_seconds_bucket{le="+Inf"} 7.0 # {trace_id="x"} 1.0
not a line
"""


def test_the_load_of_a_vllm_page() -> None:
    """Counts are summed over the labels, shares are averaged."""
    assert load_in(VLLM, KNOWN_GAUGES) == {"in_flight": 7.0, "waiting": 2.0, "kv_usage": 0.5}


def test_names_of_the_file_come_first() -> None:
    """A graph file can name a gauge that a server calls by another name."""
    spec = spec_of(gauges={"waiting": ["my_queue"]})
    text = VLLM + "my_queue 9\n"
    assert load_in(text, spec.gauges)["waiting"] == 9.0
    assert load_in(VLLM, spec.gauges)["waiting"] == 2.0
    with pytest.raises(InputError, match=r"made\.toml: gauges\.queue"):
        spec_of(gauges={"queue": ["my_queue"]})


def test_a_value_that_is_not_a_number_is_left_out() -> None:
    """A value that is not a number, or a name that is absent, is left out."""
    assert gauges_in("a NaN\nb some\nc +Inf\n", ["a", "b", "d"]) == {}

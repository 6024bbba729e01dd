"""The weights that the history of a failing run gives to the steps of its plan."""

from __future__ import annotations

import pytest

from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Violation
from graphquake.machines.findings.fault_localization import (
    BESIDE_THE_PATH,
    BURST_OF_LOAD,
    LAST_FAULT,
    blame,
)

from support.made import Made, plan_of, spec_of

pytestmark = pytest.mark.simulated

PLAN = plan_of(
    "kill decode 0", "burst 5 over 0.00 s", "kill registry 0", "kill prefill 0", "wait 0.10 s"
)


def weights(promise: str, what: str, at_s: float) -> tuple[float, ...]:
    """The weights for a violation at a time, in a graph whose registry is not part of a path."""
    roles = {
        "frontend": {"command": "frontend", "entry": "http://127.0.0.1:{port.http}"},
        "registry": {"command": "registry"},
        "prefill": {"command": "prefill"},
        "decode": {"command": "decode", "replicas": 2},
    }
    made = Made(spec_of(roles=roles), PLAN)
    for number, step in enumerate(PLAN.steps):
        made.step(str(step), 1.0 + number, number=number)
    return blame(made.history(), Violation(Signature.parse(f"{promise} / {what}"), at_s, "seen"))


@pytest.mark.parametrize(("at_s", "last"), [(1.5, 0), (3.5, 2), (9.0, 3)])
def test_the_last_fault_before_it_weighs_more(at_s: float, last: int) -> None:
    """The last fault before the violation weighs more. A step at a replica beside the path weighs less, even if it is the last."""
    expected = [1.0, 1.0, BESIDE_THE_PATH, 1.0, 1.0]
    expected[last] *= LAST_FAULT
    assert weights("error_window", "HTTP 503 / path left", at_s) == tuple(expected)


def test_before_any_fault_none_is_the_last() -> None:
    """For a violation before the first fault, no step weighs more because of its place."""
    assert weights("error_window", "HTTP 503 / path left", 0.5) == (1.0, 1.0, 0.25, 1.0, 1.0)


@pytest.mark.parametrize(
    ("promise", "what", "weight"),
    [
        ("throughput", "shed", BURST_OF_LOAD),
        ("no_leak", "gauge", BURST_OF_LOAD),
        ("no_leak", "process", 1.0),
        ("answers", "wrong tokens", 1.0),
    ],
)
def test_bursts_weigh_more_where_it_is_about_load(promise: str, what: str, weight: float) -> None:
    """A burst weighs more if requests are shed or a gauge stays above 0, and for no other violation."""
    assert weights(promise, what, 9.0)[1] == weight

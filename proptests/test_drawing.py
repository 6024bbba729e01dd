"""The plans that a seed draws, held against those that it drew before."""

from __future__ import annotations

import hashlib
import json

import hypothesis
import pytest

from graphquake.harness.spec.graph import load_graph
from graphquake.machines.sessions.search import draw_plans

PLANS = 200
# Another version of Hypothesis may draw other plans from the same seed.
DRAWN_BY = "6.170.17"


@pytest.mark.skipif(
    hypothesis.__version__ != DRAWN_BY, reason=f"recorded with hypothesis {DRAWN_BY}"
)
@pytest.mark.parametrize(
    ("graph", "seed", "digest"),
    [
        ("reference", 1, "caf6b6c766fa2c20"),
        ("reference", 2, "8c8b0b5fbf9ae674"),
        ("reference", 3, "844dd1d2860ddfc5"),
        ("dynamo-disagg", 1, "1aeab7e0cf38aebb"),
        ("dynamo-disagg", 2, "2ca36b430cdf0df1"),
        ("dynamo-disagg", 3, "fa2680e40e995f6e"),
    ],
)
def test_a_seed_draws_the_plans_that_it_drew_before(graph: str, seed: int, digest: str) -> None:
    """The rules, their order, and the order of their choices decide what a seed draws, and stay the same."""
    lines = [plan.lines() for plan in draw_plans(load_graph(graph), seed, PLANS)]
    assert hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16] == digest


@pytest.mark.skipif(
    hypothesis.__version__ != DRAWN_BY, reason=f"recorded with hypothesis {DRAWN_BY}"
)
def test_the_first_plans_of_a_seed_are_these() -> None:
    """A few plans in full, so that a change can be read."""
    drawn = [plan.one_line() for plan in draw_plans(load_graph("reference"), 1, 6)]
    assert drawn == [
        "kill registry 0",
        "kill registry 0; kill decode 0; respawn registry 0",
        (
            "kill registry 0; kill decode 0; respawn registry 0; wait until ready; kill registry 0; "
            "respawn registry 0; wait until ready; kill registry 0"
        ),
        (
            "wait 1.00 s; terminate frontend 0; wait 0.35 s; burst 40 over 0.50 s, 25% leave; "
            "wait 0.35 s; burst 5 over 1.00 s; burst 10 over 0.10 s; respawn frontend 0"
        ),
        "kill registry 0; kill decode 0; respawn registry 0; wait until ready; kill registry 0",
        (
            "kill decode 0 process; kill registry 0; respawn registry 0; wait until ready; "
            "kill registry 0"
        ),
    ]

"""The plans that a seed draws, held against those that it drew before."""

from __future__ import annotations

import hashlib
import json

import hypothesis
import pytest
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

from graphquake.harness.spec.graph import load_graph
from graphquake.machines.sessions.search import draw_plans

pytestmark = pytest.mark.simulated

PLANS = 40
# Another version of Hypothesis may draw other plans from the same seed.
DRAWN_BY = "6.170.17"


@pytest.mark.skipif(
    hypothesis.__version__ != DRAWN_BY, reason=f"recorded with hypothesis {DRAWN_BY}"
)
@pytest.mark.parametrize(
    ("graph", "seed", "digest"),
    [
        ("reference", 1, "b83b588bff7fe628"),
        ("reference", 2, "db43437fa2c9bc8a"),
        ("reference", 3, "838a0dc3b3e0db9f"),
        ("dynamo-disagg", 1, "0c5b3fc129e505c3"),
        ("dynamo-disagg", 2, "8c6a411494a1cf45"),
        ("dynamo-disagg", 3, "1a98cb8de3088edb"),
    ],
)
def test_a_seed_draws_the_plans_that_it_drew_before(graph: str, seed: int, digest: str) -> None:
    """The rules, their order, and the order of their choices stay the same, so that a seed draws the same plans."""
    lines = [plan.lines() for plan in draw_plans(load_graph(graph), seed, PLANS)]
    assert hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16] == digest


@pytest.mark.skipif(
    hypothesis.__version__ != DRAWN_BY, reason=f"recorded with hypothesis {DRAWN_BY}"
)
def test_the_first_plans_of_a_seed_are_these() -> None:
    """A few plans in full, so that a change can be read."""
    drawn = [plan.lines() for plan in draw_plans(load_graph("reference"), 1, 4)]
    assert drawn[0] == ["kill registry 0"]
    assert drawn[1] == ["kill registry 0", "kill decode 0", "respawn registry 0"]
    assert drawn[2] == [
        "kill registry 0",
        "kill decode 0",
        "respawn registry 0",
        "wait until ready",
        "kill registry 0",
        "respawn registry 0",
        "wait until ready",
        "kill registry 0",
    ]
    assert drawn[3] == [
        "stall registry 0 for 0.20 s",
        "burst 5 over 0.25 s",
        "kill prefill 0",
        "respawn prefill 0",
        "wait until ready",
        "kill prefill 0",
        "stall registry 0 for 4.00 s",
        "wait until ready",
    ]


def test_the_source_of_loaded_modules_does_not_change_what_a_seed_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A loaded module with many numbers, as Hypothesis would find them, leaves the plans of a seed as they are."""
    spec = load_graph("reference")
    before = draw_plans(spec, 3, PLANS)
    found = Constants(integers=set(range(40)))
    monkeypatch.setattr(providers, "_get_local_constants", lambda: found)
    monkeypatch.setattr(providers, "CONSTANTS_CACHE", type(providers.CONSTANTS_CACHE)(1024))
    assert draw_plans(spec, 3, PLANS) == before

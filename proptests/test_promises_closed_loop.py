"""Promises to the clients of a closed loop, on made histories."""

from __future__ import annotations

import pytest

from graphquake.harness.history.request import (
    Outcome,
)
from graphquake.harness.promises.judgement import judge

from support.made import Made, plan_of, spec_of

pytestmark = pytest.mark.simulated


@pytest.mark.parametrize(("clients", "expected"), [(0, ("recovery / no answer",)), (3, ())])
def test_clients_that_rest_ask_nothing(clients: int, expected: tuple[str, ...]) -> None:
    """In a closed loop the first success after heal may come one second later, because all clients may pause that long."""
    load = {"model": "tiny", "clients": clients} if clients else {"model": "tiny"}
    made = Made(spec_of(load=load), plan_of("kill frontend 0")).steady(0.0, 1.8)
    made.step("kill frontend 0", 2.0).phase("heal", 2.0).spawn("frontend 0", 2.0, ready_s=2.2)
    made.phase("recover", 2.0).steady(5.5, 9.0).phase("steady", 5.0).phase("drain", 9.0)
    assert tuple(map(str, judge(made.history()).signatures)) == expected


@pytest.mark.parametrize(("window_s", "each"), [(1.0, 2), (2.0, 3)])
def test_clients_fail_once_a_second_each(window_s: float, each: int) -> None:
    """In a closed loop the number of excused failures is limited by the clients' pauses after failures."""
    load = {"model": "tiny", "clients": 10, "requests_per_client": 100}
    promises = {"error_window": {"window_s": window_s}}
    made = Made(spec_of(load=load, promises=promises), plan_of("kill decode 0")).steady(0.0, 2.0)
    made.step("kill decode 0", 2.02, begun_s=2.0)
    for client in range(10):
        for turn in range(each):
            made.ask(
                2.0 + client * 0.001 + turn * 1.001, None, Outcome.ERROR, group=f"client {client}"
            )
    made.steady(2.1 + window_s, 9.0)
    assert not any(one.too_many for one in judge(made.history()).violations)
    for client in range(10):
        made.ask(2.0 + client * 0.001, None, Outcome.ERROR, group=f"client {client}")
    assert any(one.too_many for one in judge(made.history()).violations)

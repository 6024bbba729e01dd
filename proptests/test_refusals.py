"""The promise `refusals_are_cheap`: what requests that must be refused may do to others."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphquake.harness.history.request import Outcome

from support.made import Made, healthy, says
from support.planted import planted
from support.toys import in_loop
from support.undisturbed import run_live


def refused(at_s: float = 2.0, **promises: object) -> Made:
    """Return a run with five malformed requests in a burst, and steady load."""
    made = healthy(promises=promises).phase("drain", 12.0)
    for number in range(5):
        made.ask(at_s + number / 50, outcome=Outcome.REJECTED, detail="HTTP 400", group="burst 0")
        made.requests[-1].manner = "malformed"
    return made


@pytest.mark.simulated
def test_refusals_that_harm_nobody_are_kept() -> None:
    """Right answers beside refusals break nothing, and failures before them are not theirs."""
    assert says(refused()) == ("kept", ())
    early = refused().ask(1.5, outcome=Outcome.ERROR)
    assert says(early)[1] == ("error_window / HTTP 503 / path left",)


@pytest.mark.simulated
def test_a_failure_after_refusals_alone_is_theirs() -> None:
    """Only one promise judges the failure. Without this promise, `error_window` does."""
    assert says(refused().ask(5.0, outcome=Outcome.ERROR))[1] == ("refusals_are_cheap / HTTP 503",)
    in_flight = refused().ask(1.95, 2.05, Outcome.TRUNCATED, "stream cut")
    assert says(in_flight)[1] == ("refusals_are_cheap / stream cut",)
    off = refused(refusals_are_cheap=False).ask(5.0, outcome=Outcome.ERROR)
    assert says(off)[1] == ("error_window / HTTP 503 / path left",)


@pytest.mark.simulated
def test_what_another_cause_explains_is_not_blamed_on_refusals() -> None:
    """After a fault, or after a burst of other requests, `error_window` judges as always. So a plain burst is never blamed on refusals."""
    fault = refused().step("kill decode 0", 2.5).ask(3.0, outcome=Outcome.ERROR)
    assert says(fault) == ("kept", ())
    late = refused().step("kill decode 0", 2.5).ask(8.0, outcome=Outcome.ERROR)
    assert says(late)[1] == ("error_window / HTTP 503 / path left",)
    burst = refused().ask(2.2, group="burst 1").ask(5.0, outcome=Outcome.ERROR)
    assert says(burst)[1] == ("error_window / HTTP 503 / path left",)
    # An error for a request that must be refused is judged as any error.
    wrong = refused().ask(2.1, outcome=Outcome.ERROR, group="burst 0")
    wrong.requests[-1].manner = "malformed"
    assert says(wrong)[1] == ("error_window / HTTP 503 / path left",)


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("slow_s", "slower", "kind"), [(0.29, 2, "kept"), (0.6, 2, "broken"), (0.6, 6, "kept")]
)
def test_refusals_must_not_slow_others(slow_s: float, slower: float, kind: str) -> None:
    """The median latency beside refusals is at most `slower` times the largest latency before them, and 0.1 s more."""
    made = refused(refusals_are_cheap={"slower": slower})
    for request in made.requests:
        if 2.0 <= request.sent_s <= 3.0 and request.outcome == Outcome.OK:
            request.ended_s = request.last_s = request.sent_s + slow_s
    expected = ("refusals_are_cheap / slower",) if kind == "broken" else ()
    assert says(made) == (kind, expected)


@pytest.mark.simulated
@pytest.mark.parametrize(("shed", "kind"), [(2, "kept"), (3, "broken")])
def test_refusals_must_not_make_a_graph_shed_others(shed: int, kind: str) -> None:
    """A breaker that opens may show as statuses that mean "too busy"."""
    made = refused()
    for number in range(shed):
        made.ask(2.2 + number / 10, outcome=Outcome.SHED, detail="HTTP 429")
    assert says(made)[0] == kind


@in_loop
async def test_a_refusal_that_poisons_a_batch_breaks_this_promise_alone(tmp_path: Path) -> None:
    """The planted bug fails what is in flight when it refuses a malformed request."""
    bug = planted()["poisoned_batch"]
    run = await run_live(bug.spec, bug.plan, tmp_path)
    assert {one.promise for one in run.verdict.violations} == {"refusals_are_cheap"}

"""The promise `drain`: which requests count as lost by a shutdown."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphquake.harness.history.events import StepDone
from graphquake.harness.history.request import Outcome
from graphquake.harness.spec.plan import parse_step
from graphquake.harness.spec.replica import Replica

from support.made import Made, healthy, says, spec_of
from support.planted import planted
from support.toys import in_loop
from support.undisturbed import run_live

ROLES = spec_of().document["roles"]
TWO_FRONTENDS = ROLES | {"frontend": ROLES["frontend"] | {"replicas": 2}}


def lost(
    sent_s: float,
    ended_s: float,
    outcome: Outcome = Outcome.ERROR,
    *,
    step: str = "terminate decode 0",
    **bounds: float,
) -> Made:
    """Return a run in which a replica gets SIGTERM at 2 s, and one request fails. It promises to drain within 3 s."""
    promises = {"drain": {"within_s": 3.0} | bounds, "error_window": {"window_s": 5.0}}
    made = healthy(promises=promises).step(step, 2.0)
    detail = "stream cut" if outcome == Outcome.TRUNCATED else ""
    return made.ask(sent_s, ended_s, outcome, detail, quiet=(sent_s, sent_s))


def rolled(sent_s: float, ended_s: float) -> Made:
    """Return a run in which the decode workers get SIGTERM at 2 s and at 7 s, and one request fails. Failures are excused for 1 s."""
    promises = {"drain": {"within_s": 3.0}, "error_window": {"window_s": 1.0}}
    made = healthy(promises=promises)
    told = ((2.0, Replica("decode", 0)), (7.0, Replica("decode", 1)))
    roll = parse_step("roll decode")
    made.events.append(StepDone(7.0, 2.0, 0, roll, landed=True, proof="", told=told))
    made.dies("decode 0", 3.0, aimed=True).spawn("decode 0", 3.1, ready_s=3.3)
    return made.ask(sent_s, ended_s, Outcome.ERROR, "", quiet=(sent_s, sent_s))


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lost(1.5, 2.5), ("drain / HTTP 503",)),
        (lost(1.5, 2.5, Outcome.TRUNCATED), ("drain / stream cut",)),
        # The only frontend has admitted what its clients sent before.
        (lost(1.5, 2.5, step="terminate frontend 0"), ("drain / HTTP 503",)),
        # Sent after the SIGTERM, or so shortly before that it may wait in a backlog.
        (lost(2.1, 2.5), ()),
        (lost(1.95, 2.5), ()),
        # After the grace period, a replica may give up its requests.
        (lost(1.5, 5.2), ()),
        (lost(1.5, 2.5, within_s=0.4), ()),
        # No connection was made, so nothing was admitted.
        (lost(1.5, 2.5, Outcome.REFUSED), ()),
        # The only prefill worker is gone. The request may have waited for it.
        (lost(1.5, 2.5, step="terminate prefill 0"), ()),
        (lost(1.5, 2.5, step="kill decode 0"), ()),
        # SIGINT is not SIGTERM.
        (lost(1.5, 2.5, step="interrupt decode 0"), ()),
        # A roll sends one SIGTERM after the other.
        (rolled(1.5, 2.5), ("drain / HTTP 503",)),
        (rolled(6.5, 7.5), ("drain / HTTP 503",)),
        (rolled(4.0, 4.5), ("error_window / HTTP 503 / path left",)),
        # Another fault may be the reason.
        (lost(1.5, 2.5).step("kill decode 1", 1.7, number=1).spawn("decode 1", 1.8, ready_s=1.9), ()),
    ],
)  # fmt: skip
def test_a_request_is_lost_only_if_a_replica_had_admitted_it(
    made: Made, expected: tuple[str, ...]
) -> None:
    """A failure counts if the request was in flight at SIGTERM and nothing else can be its reason. No other promise judges it then."""
    assert says(made)[1] == expected


@pytest.mark.simulated
def test_drain_is_promised_only_by_name() -> None:
    """Many programs end at once after SIGTERM. So a graph file has to name the promise, and `stop_s` is its bound then."""
    made = healthy().step("terminate decode 0", 2.0).ask(1.5, 2.5, Outcome.ERROR)
    assert says(made) == ("kept", ())
    assert "drain" not in made.spec.promises.made
    assert "drain" not in spec_of(promises={"drain": False}).promises.made
    roles = ROLES | {"decode": ROLES["decode"] | {"stop_s": 4}}
    for ended_s, kind in ((5.9, "broken"), (6.1, "kept")):
        window = {"window_s": 9.0}
        made = healthy(roles=roles, promises={"drain": {}, "error_window": window})
        made.step("terminate decode 0", 2.0).ask(1.5, ended_s, Outcome.ERROR, quiet=(1.5, 1.5))
        assert says(made)[0] == kind


@in_loop
async def test_a_drain_that_drops_breaks_drain_alone(tmp_path: Path) -> None:
    """The planted bug cuts the answers that a frontend is giving. A frontend without it drains, and the same plan is kept."""
    bug = planted()["dropping_drain"]
    run = await run_live(bug.spec, bug.plan, tmp_path / "bug")
    assert {one.promise for one in run.verdict.violations} == {"drain"}

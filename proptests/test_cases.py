"""Tests of cases: their files of both schemas, the violations that they excuse, and the bounds under which they are replayed."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.history.history import History
from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Violation
from graphquake.harness.spec.bounds import BUILT_IN_PROMISES, Promises
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.load import LoadSpec
from graphquake.harness.spec.plan import Burst, Kill, Wait
from graphquake.machines.cases.case import (
    RELABELLINGS_MAX,
    Case,
    Difference,
    Observed,
    ShrinkCost,
    relabellings,
)
from graphquake.machines.cases.case_file import case_text, read_case
from graphquake.machines.cases.conditions import bounds_of, changes, load_of
from graphquake.machines.cases.replay import impossible
from graphquake.machines.cases.wording import (
    control_text,
    difference_text,
    needed_texts,
    number_text,
    reproduced_text,
)
from graphquake.machines.shrinking.result import Control, Needed, Threshold

from support.made import Made, plan_of, spec_of

pytestmark = pytest.mark.simulated

SIGNATURE = Signature("error_window", "HTTP 503", "path left")
SHIPPED = Path(__file__).parent / "regressions/dbe043.json"

OLD: dict[str, Any] = {
    "schema": 1,
    "id": "abc123",
    "title": "error_window broken by two kills",
    "status": "known",
    "why": "a link",
    "graph": {"name": "made", "shape": "decode 2", "digest": "0c5a49"},
    "promise": "error_window",
    "signature": "error_window / HTTP 503 / path left",
    "also": ["recovery / HTTP 503 / path left"],
    "steps": ["kill decode 0", "wait 0.50 s", "burst 40 over 0.20 s", "kill decode 0"],
    "heal": "release",
    "stay_s": 4.0,
    "any_replica": False,
    "seen": "285 of 680 failed: 285 × HTTP 503; the last one sent at +8.8 s",
    "reach_s": 11.4,
    "needed": {
        "kill decode 0": "kept in 3 of 3 runs",
        "wait 0.50 s": "broken in only 1 of 4 runs",
        "burst 40 over 0.20 s": "untested",
        "kill decode 0 (step 4)": "kept in 2 of 2 runs",
    },
    "numbers": {
        "stay": "stay_s 4 breaks it, 2.5 was kept in 3 of 4 runs",
        "burst 40 over 0.20 s": "over_s 0.2 breaks it, 0.1 was kept in 3 of 3 runs; requests 40 breaks it, 30 was kept in 3 of 3 runs",
    },
    "differs": ['requests in flight at "kill decode 0" (step 1) ≥ 12: 4 of 4 broken, 0 of 7 kept'],
    "controls": "broken in 1 of 3 runs without the faults: load alone can break it",
    "bounds": {
        "window_s": 2.0, "in_flight": "may fail", "stall_s": 3.0, "first_ok_s": 3.0, "all_ok_s": 5.0, "agree_s": 5.0,
        "grace_s": 5.0,
    },
    "load": {"rate_per_s": 40.0, "stream": 0.5, "deadline_s": 8.0, "prompt_tokens": 64, "max_tokens": 24, "seed": 7},
    "shrunk_from": {
        "steps": 9.0, "live_runs": 16.0, "live_s": 96.0, "unneeded_runs": 2, "gpu_s": 0, "round": 0.0, "draw": 2.0, "plainer": 1,
    },
    "observed": [
        {"on": "2026-11-24", "versions": {"dynamo": "1.6.1"}, "host": "2 cores", "broke": 4, "runs": 11, "invalid": 1}
    ],
}  # fmt: skip

NEW = Case(
    id="abc123",
    title="error_window broken by two kills",
    status="known",
    graph={"name": "made", "shape": "decode 2", "digest": "0c5a49"},
    signature=SIGNATURE,
    plan=plan_of(
        "kill decode 0",
        "wait 0.50 s",
        "burst 40 over 0.20 s",
        "kill decode 0",
        "heal release",
        "stay 4.00 s",
    ),
    seen="285 of 680 failed: 285 × HTTP 503; the last one sent at +8.8 s",
    why="a link",
    also=(Signature("recovery", "HTTP 503", "path left"),),
    reach_s=11.4,
    bounds=OLD["bounds"] | {"spare_failures": 2},
    load=OLD["load"] | {"clients": 0},
    any_replica=False,
    needed=(
        Needed(Kill("decode", 0), 0, 3),
        Needed(Wait(0.5), 1, 3),
        Needed(Burst(40, 0.2), 0, 0),
        Needed(Kill("decode", 0), 0, 2),
    ),
    numbers=(
        Threshold(None, "stay_s", 4.0, 2.5, 1, 3),
        Threshold(Burst(40, 0.2), "over_s", 0.2, 0.1, 0, 3),
        Threshold(Burst(40, 0.2), "requests", 40.0, 30.0, 0, 3),
    ),
    differs=(Difference('requests in flight at "kill decode 0" (step 1)', "≥", 12.0, 4, 7),),
    control=Control(1, 2),
    cost=ShrinkCost(9, plainer=True, live_runs=16, live_s=96.0, unneeded_runs=2, draw=2),
    observed=(Observed("2026-11-24", {"dynamo": "1.6.1"}, "2 cores", 4, 11, 1),),
)


def test_schema_1_is_read_into_numbers() -> None:
    """Every sentence with counts of an old case becomes numbers, and the case is written in schema 3 from then on."""
    assert read_case("old", json.dumps(OLD)) == NEW
    written = json.loads(case_text(NEW))
    assert written["schema"] == 3
    assert written["needed"][1] == {"step": "wait 0.50 s", "broke": 1, "kept": 3}
    assert not {"controls", "shrunk_from"} & set(written)


def test_schema_3_is_read_as_it_was_written() -> None:
    """A case that is written and read again is equal, with all of its fields and with none of the optional ones."""
    assert read_case("new", case_text(NEW)) == NEW
    full = replace(NEW, bounds=bounds_of(spec_of()), load=load_of(spec_of()), any_replica=True)
    assert read_case("new", case_text(full)) == full
    bare = Case(
        "abc123", "", "open", {"name": "made"}, SIGNATURE, plan_of("kill decode 0"), "failed"
    )
    bare = replace(bare, title="bare")
    assert read_case("new", case_text(bare)) == bare


def test_must_survive_of_schema_2_is_read_as_it_was_meant() -> None:
    """An old case that says `must survive` was judged as `like others`, and with two spare failures. So is its replay."""
    old = json.loads(case_text(NEW)) | {
        "schema": 2,
        "bounds": {"window_s": 2.0, "in_flight": "must survive"},
    }
    assert read_case("old", json.dumps(old)).bounds == {
        "window_s": 2.0, "in_flight": "like others", "spare_failures": 2,
    }  # fmt: skip
    new = old | {"schema": 3}
    assert read_case("new", json.dumps(new)).bounds["in_flight"] == "must survive"


def test_the_words_of_a_case_stay_the_same() -> None:
    """The sentences that a report renders from the counts are those that schema 1 kept, with units and the step's own name."""
    case = read_case("old", json.dumps(OLD))
    assert list(needed_texts(case)) == [
        'without "kill decode 0": kept in 3 of 3 runs',
        'without "wait 0.50 s": broken in only 1 of 4 runs',
        'without "burst 40 over 0.20 s": untested',
        'without "kill decode 0" (step 4): kept in 2 of 2 runs',
    ]
    assert number_text(case.numbers[0]) == "the stay 4 s breaks it, 2.5 s was kept in 3 of 4 runs"
    assert difference_text(case.differs[0]) == OLD["differs"][0]
    assert control_text(case) == OLD["controls"]


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({"schema": 4}, "schema: found 4, this graphquake reads up to 3"),
        ({"needed": {"kill decode 0": "often"}}, 'needed.kill decode 0: found "often", expected'),
        ({"numbers": {"stay": "4 s"}}, 'numbers.stay: found "4 s", expected'),
        ({"differs": ["age"]}, 'differs: found "age", expected'),
        ({"needed": {"jump": "untested"}}, "needed[0].step: "),
        ({"promise": "recovery"}, "promise: "),
        ({"bounds": {"windows_s": 2}}, 'did you mean "window_s"?'),
        ({"why": ""}, "why: "),
    ],
)
def test_a_damaged_case_is_an_error(change: dict[str, Any], right: str) -> None:
    """An error names the file and the key. A sentence with counts that can't be read is not guessed at."""
    with pytest.raises(InputError, match=r"^old: ") as caught:
        read_case("old", json.dumps(OLD | change))
    assert right in str(caught.value)


@pytest.mark.parametrize(
    ("signature", "also", "seen", "expected"),
    [
        ("recovery / error event / no path", ["recovery / HTTP 500 / no path"], "", "error event 500"),
        ("recovery / error event / no path", [], "", "error event 503"),
        ("error_window / too many / path left", [], "60 of 90 failed: 50 × connection refused, 10 × HTTP 503", "connection refused"),
        ("error_window / too many / path left", [], "60 of 90 failed: 60 × error event; the last", "error event 503"),
        ("error_window / too many / path left", [], "it was bad", "too many"),
        ("recovery / HTTP 500 / no path", [], "", "HTTP 500"),
    ],
)  # fmt: skip
def test_old_words_of_signatures_are_mapped(
    signature: str, also: list[str], seen: str, expected: str
) -> None:
    """An error event of schema 1 gets a status, and failures that were too many get their most frequent class."""
    old = OLD | {
        "signature": signature, "promise": signature.split(" / ", maxsplit=1)[0], "also": also, "seen": seen or "failed"
    }  # fmt: skip
    assert read_case("old", json.dumps(old)).signature.what == expected


def test_the_shipped_case_is_of_schema_3() -> None:
    """The case that comes with graphquake is in the form that is written today, to the letter."""
    text = SHIPPED.read_text(encoding="utf-8")
    assert case_text(read_case("dbe043.json", text)) == text


# ---- bounds


def different(spec: GraphSpec) -> GraphSpec:
    """A graph whose every bound and whose whole load differ from the defaults."""
    promises = Promises(
        made=("error_window", "ends", "answers"), stall_s=4.0, oracle="json:dumps", window_s=0.5, in_flight="may fail",
        spare_failures=5, drain_s=1.5, well_s=2.5, well_slower=3.5, refusals_slower=4.0, growth_mib=2.0,
        first_ok_s=4.5, all_ok_s=6.5, success=0.9, goodput=0.8, slower=3.0, agree_s=7.0, grace_s=9.0,
        gauges=("in_flight",), panics=("oops",), not_panics=("no",), extra=("json:loads",),
    )  # fmt: skip
    load = LoadSpec(
        "made", rate_per_s=3.0, prompt_tokens=5, max_tokens=6, too_long_tokens=900, malformed=True, stream=0.25, deadline_s=2.0,
        shed=(429, 503), api="chat", seed=11, clients=4, requests_per_client=9, max_retries=3,
    )  # fmt: skip
    return replace(spec, promises=promises, load=load, lease_s=12.0)


def test_a_replay_uses_every_bound_that_the_case_was_judged_by() -> None:
    """A case restores all bounds, the whole load and the lease, even if the graph file has changed."""
    then, now = different(spec_of()), spec_of()
    for owner in ("promises", "load"):
        mine, default = getattr(then, owner), getattr(now, owner)
        same = [f.name for f in fields(mine) if getattr(mine, f.name) == getattr(default, f.name)]
        assert set(same) <= {"from_file", "model"}, "this test gives every field a value of its own"
    case = replace(NEW, bounds=bounds_of(then), load=load_of(then))
    replayed = read_case("new", case_text(case)).as_in(now)
    assert replayed.promises == replace(then.promises, from_file=now.promises.from_file)
    assert replayed.load == replace(then.load, model=now.load.model)
    assert replayed.lease_s == 12.0


def test_the_folder_of_a_replay_is_judged_by_the_bounds_of_the_case(tmp_path: Path) -> None:
    """The document in a run's folder has the bounds of the case, so a later `check` judges by every bound of the case."""
    then = different(spec_of())
    promised = tuple(name for name in BUILT_IN_PROMISES if name != "blast_radius")
    then = replace(then, promises=replace(then.promises, made=promised))
    case = replace(NEW, bounds=bounds_of(then), load=load_of(then))
    Made(case.as_in(spec_of())).history().save(tmp_path)
    spec = History.load(tmp_path).spec
    assert spec.promises == replace(then.promises, from_file=spec.promises.from_file)
    assert spec.load == replace(then.load, model="tiny")
    assert spec.lease_s == 12.0


def test_an_old_case_takes_the_other_bounds_from_the_graph_file() -> None:
    """A case of schema 1 keeps only seven bounds. Its replay takes the other bounds from the graph file. An open loop has no clients."""
    replayed = read_case("old", json.dumps(OLD)).as_in(different(spec_of()))
    assert (replayed.promises.in_flight, replayed.promises.window_s) == ("may fail", 2.0)
    assert (replayed.promises.slower, replayed.lease_s) == (3.0, 12.0)
    assert (replayed.load.clients, replayed.load.api) == (0, "chat")


def test_a_later_promise_is_not_a_changed_bound() -> None:
    """A case that was saved before a promise existed does not name it. Only a promise that was given up is a change."""
    load = load_of(spec_of())
    made = spec_of().promises.made
    before = bounds_of(spec_of()) | {"made": tuple(one for one in made if one != "no_panic")}
    assert changes(spec_of(), before, load) == ()
    off = spec_of(promises={"no_panic": False})
    assert changes(off, bounds_of(spec_of()), load) == ("promises.no_panic is off (case: on)",)


def test_a_promise_whose_code_is_gone_proves_nothing() -> None:
    """A case brings its own promises and its oracle. If they can't be imported any more, its replay says so."""
    case = replace(NEW, plan=plan_of("kill decode 0"), bounds={"extra": ("gone:no_5xx",)})
    assert "gone" in impossible(case, case.as_in(spec_of()))
    case = replace(case, bounds={"oracle": "gone:expected"})
    assert "gone" in impossible(case, case.as_in(spec_of()))
    assert impossible(replace(case, bounds={}), spec_of()) == ""


# ---- the violations that a case explains

EIGHT = {
    "server": {"command": "server", "entry": "http://127.0.0.1:{port.http}"},
    "worker": {"command": "worker", "replicas": 8},
}


def killed(*workers: int) -> History:
    """Workers of a graph with eight that are killed, one a second from 2 s on."""
    made = Made(
        spec_of(roles=EIGHT, serves="server and worker"),
        plan_of(*(f"kill worker {one}" for one in workers)),
    )
    for number, worker in enumerate(workers):
        made.step(f"kill worker {worker}", 2.0 + number, number=number)
    return made.history()


@pytest.mark.parametrize("worker", range(8))
def test_a_case_for_any_replica_explains_each_of_eight(worker: int) -> None:
    """A case of `kill worker 0` that holds for any replica explains the same after a kill of each other worker."""
    case = replace(NEW, plan=plan_of("kill worker 0"), any_replica=True, reach_s=1.5)
    seen = Violation(SIGNATURE, 3.0, "failed")
    assert case.explains(seen, killed(worker))
    assert not case.explains(replace(seen, at_s=3.6), killed(worker))
    assert replace(case, any_replica=False).explains(seen, killed(worker)) == (worker == 0)


@pytest.mark.parametrize(("seen_s", "explains"), [(6.4, True), (8.9, True), (9.1, False)])
def test_a_longer_stall_may_be_seen_later(seen_s: float, *, explains: bool) -> None:
    """A case of a stall for 4 s has a reach of 5 s. A stall for 6 s explains failures up to 2 s later."""
    case = replace(NEW, plan=plan_of("stall worker 0 for 4.00 s"), reach_s=5.0)
    made = Made(
        spec_of(roles=EIGHT, serves="server and worker"), plan_of("stall worker 0 for 6.00 s")
    )
    history = made.step("stall worker 0 for 6.00 s", 2.0, number=0).history()
    assert case.explains(Violation(SIGNATURE, seen_s, "failed"), history) == explains


def test_a_pair_of_replicas_stays_a_pair() -> None:
    """Relabelled replicas stay different ones: a case of two workers does not explain a violation after two kills of one worker."""
    case = replace(NEW, plan=plan_of("kill worker 0", "kill worker 1"), any_replica=True)
    seen = Violation(SIGNATURE, 4.0, "failed")
    assert case.explains(seen, killed(6, 3))
    assert not case.explains(seen, killed(6, 6))
    assert not case.explains(seen, killed(6))


def test_relabellings_are_bounded() -> None:
    """However many replicas two plans name, the relabellings end at the documented maximum."""
    wide = plan_of(*(f"kill worker {one}" for one in range(8)))
    assert sum(1 for _ in relabellings(wide, wide)) == RELABELLINGS_MAX


# ---- words


def test_a_finding_that_was_not_run_again_says_so() -> None:
    """After a single run the report shows words in place of a rate."""
    none = replace(NEW, observed=(Observed("2026-11-24", {}, "2 cores", 0, 0),))
    assert reproduced_text(none).startswith("not run again")
    assert reproduced_text(NEW).startswith("4 of 11 runs (")

"""Tests of plans as text and as JSON."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquake.harness.errors import InputError
from graphquake.harness.spec.plan import (
    PROCESS,
    TREE,
    Burst,
    Child,
    Kill,
    Plan,
    Respawn,
    Stall,
    Step,
    Terminate,
    Until,
    UntilFirstToken,
    UntilInFlight,
    UntilLogs,
    UntilStarts,
    Wait,
    WaitReady,
    parse_plan,
    parse_step,
    plan_from_json,
    read_plan,
)
from graphquake.harness.spec.table import Table

from support.made import plan_of

pytestmark = pytest.mark.simulated

roles = st.from_regex(r"[a-z_][a-z0-9_-]{0,8}", fullmatch=True)
indices = st.integers(0, 999)
children = roles.filter(lambda name: name not in ("tree", "process"))
hundredths = st.integers(0, 60_000).map(lambda n: n / 100)
steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(Kill, roles, indices, st.sampled_from([TREE, PROCESS])),
    st.builds(Kill, roles, indices, st.builds(Child, children, indices)),
    st.builds(Terminate, roles, indices),
    st.builds(Stall, roles, indices, hundredths.filter(bool)),
    st.builds(Respawn, roles, indices),
    st.builds(
        Burst, st.integers(1, 100_000), hundredths, *[st.integers(0, 33).map(lambda n: n / 100)] * 3
    ),
    st.builds(Wait, hundredths),
    st.just(WaitReady()),
    st.builds(UntilInFlight, st.integers(1, 100_000)),
    st.just(UntilFirstToken()),
    st.builds(UntilStarts, roles, indices),
    st.builds(UntilLogs, roles, indices, st.from_regex(r"[\w.:/-]+( [^\s\";]+)?", fullmatch=True)),
)
plans = st.builds(
    Plan,
    st.lists(steps, max_size=12).map(tuple),
    st.sampled_from(["all", "release"]),
    hundredths,
)


@given(plans)
def test_a_plan_survives_its_text(plan: Plan) -> None:
    """A plan that is written as text and read again is the same plan."""
    assert parse_plan("made", plan.lines()) == plan
    assert read_plan("made", str(plan)) == plan


@given(plans)
def test_a_plan_survives_json(plan: Plan) -> None:
    """A plan that is written as JSON and read again is the same plan. The reader recognises the form."""
    text = json.dumps(plan.to_json())
    assert plan_from_json(Table("made", json.loads(text))) == plan
    assert read_plan("made", text) == plan


def test_heal_none_of_an_old_file_is_heal_release() -> None:
    """`heal none` in an old file is read as `heal release`, so that one plan has one spelling."""
    release = Plan((Kill("a", 0),), heal="release")
    assert read_plan("old", "kill a 0\nheal none") == release
    assert read_plan("old", '{"steps": ["kill a 0"], "heal": "none"}') == release
    assert "heal release" in release.lines()


@given(plans)
def test_the_control_plan_has_no_fault_and_the_same_load(plan: Plan) -> None:
    """The control plan has no faults and no respawns, and all bursts and waits of the plan. It waits for no event."""
    control = plan.without_faults()
    assert not control.faults
    kept = [
        Wait(step.plain_s) if isinstance(step, Until) else step
        for step in plan.steps
        if isinstance(step, Burst | Wait | WaitReady | Until)
    ]
    assert list(control.steps) == kept


def test_remarks_and_empty_lines_are_not_steps() -> None:
    """Remarks and empty lines in a plan are skipped."""
    plan = parse_plan("made", ["# why", "", "  kill   decode 0  "])
    assert plan.steps == (Kill("decode", 0),)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("kil decode 0", 'did you mean "kill"?'),
        ("kill decode", "is not of the form: kill ROLE INDEX"),
        ("wait 1", "is not of the form: wait T s"),
        ("burst 0 over 1 s", "expected a number of requests from 1"),
        ("burst 5 over 1 s, 120% leave", "expected a share in % from 0 to 100"),
        ("burst 5 over 1 s, 60% leave, 50% refused", "found shares of 110% together"),
        ("burst 5 over 1 s, 50% refuse", "[, P% leave at token N][, P% refused][, P% malformed]"),
        ("wait 601 s", "expected seconds from 0 to 600"),
        ("kill decode 0 tree 1", "takes no index"),
    ],
)
def test_the_error_of_a_wrong_step_names_the_right_form(line: str, said: str) -> None:
    """The error for a wrong step begins with the file and the number of the step, and shows a correct form."""
    with pytest.raises(InputError) as raised:
        parse_plan("my.plan", ["wait 1 s", line])
    assert str(raised.value).startswith("my.plan: step 2: ")
    assert said in str(raised.value)


def test_a_newer_schema_is_not_guessed_at() -> None:
    """A plan with a newer schema is an InputError that names both schemas."""
    with pytest.raises(InputError, match="schema: found 99, this graphquake reads up to 1"):
        read_plan("my.json", '{"schema": 99, "steps": []}')


@given(st.text(max_size=40))
def test_any_text_is_a_plan_or_an_input_error(text: str) -> None:
    """Any text is read as a plan, or is an InputError that names its source."""
    try:
        plan = read_plan("any", text)
    except InputError as error:
        assert str(error).startswith("any")
    else:
        assert read_plan("any", str(plan)) == plan


def test_kills_and_terminates_are_faults() -> None:
    """Kills and terminates are faults. Respawns and waits are not."""
    assert [parse_step(s).is_fault for s in ("kill a 0", "terminate a 0", "respawn a 0", "wait 1 s")] == [
        True, True, False, False,
    ]  # fmt: skip


def test_a_plan_that_travels_to_another_process_takes_no_hash_along() -> None:
    """Hashes of texts differ between processes, so a pickled plan holds only its steps, its way to heal and its stay."""
    plan = plan_of("kill decode 0", "stay 2.00 s")
    assert plan.__reduce__() == (Plan, (plan.steps, "all", 2.0))
    copy = pickle.loads(pickle.dumps(plan))  # noqa: S301 - we wrote it ourselves
    assert copy == plan
    assert {plan: "found"}[copy] == "found"

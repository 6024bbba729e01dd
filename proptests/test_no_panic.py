"""The promise `no_panic`: which log lines count, and which are the last words of a replica that a fault ends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import Panicked
from graphquake.harness.history.history import History
from graphquake.harness.observation.log_watch import READ_MAX_BYTES, NewBytes, PanicReader
from graphquake.harness.spec.panics import compiled
from graphquake.harness.spec.replica import Replica

from support.made import Made, healthy, says, spec_of
from support.planted import planted
from support.toys import in_loop
from support.undisturbed import run_live

BROKEN = {
    "Rust panic": (
        "thread 'tokio-runtime-worker' panicked at 'index out of bounds', src/lib.rs:7:5",
        "thread 'main' (71) panicked at src/main.rs:2:5:",
        "2026-11-28T10:00:00Z thread '<unnamed>' panicked at library/core/src/option.rs:1:1:",
        "thread 'main' has overflowed its stack",
    ),
    "Go panic": (
        "panic: runtime error: invalid memory address or nil pointer dereference",
        "goroutine 12 [running]:",
        "fatal error: concurrent map writes",
    ),
    "Python fatal error": ("Fatal Python error: Segmentation fault",),
    "fatal signal": (
        "*** SIGSEGV received at time=1764350000 on cpu 3 ***",
        '*** Aborted at 1764350000 (unix time) try "date -d @1764350000" ***',
        "!!!!!!! Segfault encountered !!!!!!!",
        "[alert] 12#12: worker process 13 exited on signal 11",
    ),
    "C++ abort": (
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "double free or corruption (!prev)",
        "*** stack smashing detected ***: terminated",
    ),
}  # fmt: skip
# What correct programs write when a peer is killed, or when they are asked to end.
NORMAL = (
    "*** SIGTERM received at time=1764350000 on cpu 3 ***",
    "[alert] 12#12: worker process 13 exited on signal 9",
    "Traceback (most recent call last):",
    "asyncio.exceptions.CancelledError",
    "KeyboardInterrupt",
    "ERROR dynamo_runtime: connection reset by peer",
    "fatal error: cannot bind to port 80",
    "INFO the handler would panic: that is not a bug",
    "Engine core died unexpectedly",
    "RuntimeError: Engine process failed to start",
    "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
)


def panicked(at_s: float, replica: str = "decode 0", incarnation: int = 0) -> Panicked:
    """Return the event of a forbidden line."""
    return Panicked(at_s, Replica.parse(replica), incarnation, "Rust panic", "thread 'x' panicked")


def with_line(found: Panicked, step: str = "kill decode 0") -> Made:
    """Return a run with a forbidden line, and a fault at 2 s after which its victim starts again."""
    made = healthy().step(step, 2.0)
    if not step.startswith("kill"):
        made.dies("decode 0", 2.5, aimed=True, status=0)
    made.spawn("decode 0", 3.0, ready_s=3.5)
    made.events.append(found)
    return made


@pytest.mark.simulated
@pytest.mark.parametrize("name", BROKEN)
def test_the_default_patterns_find_what_broken_programs_write(name: str) -> None:
    """Each example is found by the pattern of its own kind, also between other lines, with colours and behind a time."""
    for line in BROKEN[name]:
        text = f"INFO all is well\n\x1b[31m{line}\x1b[0m\nINFO all is well\n"
        assert [one for one, _ in PanicReader(compiled(())).find("a", text.encode())] == [name], (
            line
        )


@pytest.mark.simulated
def test_the_default_patterns_do_not_find_what_correct_programs_write() -> None:
    """Tracebacks, errors, and the words of a program that is asked to end do not count."""
    reader = PanicReader(compiled(()))
    assert not list(reader.find("a", "\n".join([*NORMAL, ""]).encode()))


@pytest.mark.simulated
def test_a_pattern_counts_once_for_each_incarnation() -> None:
    """A program that panics a thousand times gives one event for each incarnation. Ignored lines do not count."""
    reader = PanicReader(compiled(["lost \\w+"]), [re.compile("lost interest")])
    assert not list(reader.find("a", b"lost interest\n"))
    found = [
        one for _ in range(3) for one in reader.find("a", b"lost interest\n we  lost it \n" * 9)
    ]
    assert found == [('"lost \\w+"', "we lost it")]
    assert list(reader.find("b", b"lost it\n")) == [('"lost \\w+"', "lost it")]


@pytest.mark.simulated
@given(st.lists(st.integers(1, 9), max_size=12))
def test_a_log_is_read_in_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    """However a log grows, each of its lines is read once and whole."""
    path = tmp_path_factory.mktemp("log") / "log"
    log, read, text = NewBytes(path), b"", b"one\ntwo and a half\n\nfour\n"
    assert not log.read()
    for cut in [*cuts, len(text)]:
        with path.open("ab") as file:
            file.write(text[path.stat().st_size :][:cut])
        part = log.read()
        assert part.endswith(b"\n") or not part
        read += part
    assert read == text


@pytest.mark.simulated
def test_one_look_reads_a_bounded_part_of_a_log(tmp_path: Path) -> None:
    """A look at a huge log takes a bounded time. The next looks read the rest."""
    (tmp_path / "log").write_bytes(b"x" * 99 + b"\n")
    with (tmp_path / "log").open("ab") as file:
        file.write(b"y\n" * READ_MAX_BYTES)
    log = NewBytes(tmp_path / "log")
    parts = [log.read() for _ in range(4)]
    assert max(map(len, parts)) <= READ_MAX_BYTES
    assert sum(map(len, parts)) == 100 + 2 * READ_MAX_BYTES


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("found", "step", "expected"),
    [
        (panicked(2.1), "kill decode 0", "kept"),
        (panicked(2.4), "terminate decode 0", "kept"),
        (panicked(1.9), "kill decode 0", "broken"),
        (panicked(2.1, "decode 1"), "kill decode 0", "broken"),
        (panicked(3.2, incarnation=1), "kill decode 0", "broken"),
        (panicked(2.1), "stall decode 0 for 0.10 s", "broken"),
    ],
)
def test_the_last_words_of_a_victim_do_not_count(found: Panicked, step: str, expected: str) -> None:
    """A line counts unless a fault was ending the incarnation that wrote it."""
    kind, signatures = says(with_line(found, step))
    assert kind == expected
    assert [one for one in signatures if "no_panic" in one] == (
        ["no_panic / decode logged Rust panic"] if expected == "broken" else []
    )


@pytest.mark.simulated
def test_a_forbidden_line_is_kept_on_disk(tmp_path: Path) -> None:
    """A run folder can be judged again."""
    made = with_line(panicked(5.0))
    made.history().save(tmp_path)
    assert History.load(tmp_path).events == made.history().events


@pytest.mark.simulated
def test_a_pattern_must_be_a_regular_expression() -> None:
    """The error names the key and the mistake."""
    with pytest.raises(
        InputError, match=r"promises\.no_panic\.patterns: found 'a\(', expected a reg"
    ):
        spec_of(promises={"no_panic": {"patterns": ["a("]}})


@in_loop
async def test_a_panic_that_no_client_notices_breaks_no_panic_alone(tmp_path: Path) -> None:
    """The planted bug writes what a Rust program writes, and goes on. Nothing else is wrong in its run."""
    bug = planted()["unwrapped_none"]
    run = await run_live(bug.spec, bug.plan, tmp_path)
    (signature,) = run.verdict.signatures
    assert str(signature) == "no_panic / processor logged Rust panic"
    assert "processor 0 logged: thread 'tokio-runtime" in run.verdict.violations[0].seen

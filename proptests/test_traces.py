"""The traces of runs, as a collector receives them."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import Resumed
from graphquake.harness.history.host import Host
from graphquake.harness.history.request import Outcome
from graphquake.harness.promises.signature import Signature
from graphquake.harness.promises.verdict import Verdict, Violation
from graphquake.harness.run.live import LiveRun
from graphquake.harness.spec.replica import Replica
from graphquake.machines.frontends.tracing import open_traces
from graphquake.machines.runners.run_observer import observed
from graphquake.machines.sessions.traces import RunTracer, Traces

from support.collector import Collector, values_of
from support.made import Made, plan_of
from support.metrics import free_port
from support.nested_pytest import enter, run_here

pytestmark = pytest.mark.simulated

PLAN = plan_of("kill decode 0", "stall decode 1 for 2 s")
SIGNATURE = Signature.parse("error_window / HTTP 503 / path left")
# What the clocks of a history and of a span may differ by, in nanoseconds: the wall clock has microseconds.
CLOSE_NS = 1_000


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that the variable `OTEL_EXPORTER_OTLP_ENDPOINT` names."""
    one = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", one.url)
    yield one
    one.close()


def traced_run(began: datetime) -> LiveRun:
    """A broken run, whose baseline began at this time."""
    made = Made(plan=PLAN)
    made.step("kill decode 0", 1.5, begun_s=1.4).step("stall decode 1 for 2 s", 2.1, number=1)
    made.events.append(Resumed(4.1, Replica("decode", 1), "runs again"))
    made.phase("heal", 5.0).ask(2.0, 2.5).ask(2.0, 3.0, outcome=Outcome.ERROR)
    history = made.history()
    history.host = Host(began=began)
    verdict = Verdict("broken", (Violation(SIGNATURE, 3.0, "HTTP 503"),))
    return LiveRun(history, verdict, Path("runs/0001"), 8.0, 0.5)


def test_a_run_is_one_trace(collector: Collector) -> None:
    """A run has spans for its phases, its steps and its lasting faults, with their proofs. Their times are those of the history."""
    began = datetime.now(UTC) + timedelta(seconds=3)
    traces = Traces()
    with observed([RunTracer(traces.tracer, {"graphquake.graph": "toy"})], PLAN, "search") as seen:
        seen.run = traced_run(began)
    assert traces.close() == ""
    spans = {span.name: span for span in collector.spans()}
    names = {"run", "start", "baseline", "plan", "heal", "kill", "stall", "fault stall"}
    assert sorted(span.name for span in collector.spans()) == sorted(names)
    assert len({span.trace_id for span in spans.values()}) == 1
    assert collector.service() == "graphquake"

    root, about = spans["run"], values_of(spans["run"].attributes)
    assert not root.parent_span_id
    assert (about["graphquake.graph"], about["graphquake.why"]) == ("toy", "search")
    assert about["graphquake.plan"] == str(PLAN)
    assert (about["graphquake.verdict"], about["graphquake.folder"]) == ("broken", "runs/0001")
    assert about["graphquake.violations"] == [str(SIGNATURE)]
    assert [about[f"graphquake.requests.{name}"] for name in ("sent", "ok", "failed")] == [2, 1, 1]
    assert root.status.code == Status.STATUS_CODE_ERROR
    violation = next(event for event in root.events if event.name == "violation")
    assert (violation.time_unix_nano, len(root.events)) == (at_ns(began, 3.0), 1 + 8 + 1)

    for name in names - {"run", "kill", "stall"}:
        assert spans[name].parent_span_id == root.span_id
    assert spans["kill"].parent_span_id == spans["stall"].parent_span_id == spans["plan"].span_id
    for name, begin_s, end_s in (
        ("baseline", 0.0, 1.0),
        ("plan", 1.0, 5.0),
        ("kill", 1.4, 1.5),
        ("fault stall", 2.1, 4.1),
    ):
        times = (spans[name].start_time_unix_nano, spans[name].end_time_unix_nano)
        assert times == (at_ns(began, begin_s), at_ns(began, end_s))
    kill, fault = values_of(spans["kill"].attributes), values_of(spans["fault stall"].attributes)
    assert (kill["graphquake.proof"], kill["graphquake.landed"]) == ("made", True)
    assert (fault["graphquake.target"], fault["graphquake.end_proof"]) == ("decode 1", "runs again")


def at_ns(began: datetime, at_s: float) -> int:
    """The wall-clock time of a moment of the history, as other outputs give it."""
    exact = began + timedelta(seconds=at_s)
    return (exact - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def test_a_run_without_a_result_is_a_span(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was cancelled, or whose graph did not start, has one span. The user may name the service."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "nightly")
    traces = Traces()
    begun_ns = time.time_ns()
    with observed([RunTracer(traces.tracer, {})], PLAN, "shrink"):
        pass
    traces.close()
    (span,) = collector.spans()
    assert values_of(span.attributes)["graphquake.verdict"] == "none"
    assert begun_ns <= span.start_time_unix_nano <= span.end_time_unix_nano <= time.time_ns()
    assert collector.service() == "nightly"


def test_spans_without_a_collector_are_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The spans are lost after the time limit of the exporter. A line says how many and why, and nothing else is logged."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    traces = Traces()
    with observed([RunTracer(traces.tracer, {})], PLAN, "search"):
        pass
    said = traces.close()
    assert re.match(r"traces: 1 of 1 spans could not be sent: \w+", said), said
    assert caplog.records == []


def test_another_protocol_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra sends over HTTP only. The variable for traces counts more than the general one."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(InputError, match='OTEL_EXPORTER_OTLP_PROTOCOL: found "grpc", expected'):
        Traces()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    assert Traces().close() == ""


def test_without_the_extra_an_error_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pytest ends before anything starts, with the command that installs what is missing."""
    enter(tmp_path, monkeypatch)
    monkeypatch.delitem(sys.modules, "graphquake.machines.sessions.traces", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(InputError, match=r"--chaos-traces: opentelemetry\S* is not installed"):
        open_traces()
    status, out = run_here(capsys, "--chaos-graph", "reference", "--chaos-traces")
    assert (status, "pip install 'graphquake[otlp]'" in out) == (2, True), out
    assert not (tmp_path / ".graphquake").exists()

"""Sends each live run as an OpenTelemetry trace: spans for the run, its phases, its steps and its faults, with proof.

The spans are made when the run is over, from its history, so tracing costs the run nothing. A thread of the SDK sends them in batches. The
variables `OTEL_*` say where to, see the SDK. A collector that can't be reached does not delay a run. It delays the end of the search by the
time limit of the exporter, `OTEL_EXPORTER_OTLP_TIMEOUT`. Then the spans that were lost are counted.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final, TypeAlias

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, StatusCode, Tracer, set_span_in_context

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import (
    BecameReady,
    Died,
    Panicked,
    PhaseBegan,
    Spawned,
    StepDone,
)
from graphquake.harness.history.faults import faults_of
from graphquake.harness.history.history import History
from graphquake.harness.history.request import Outcome
from graphquake.harness.run.live import LiveRun
from graphquake.harness.run.status import RunStatus
from graphquake.harness.spec.plan import Plan

Attributes: TypeAlias = Mapping[str, str | int | float | bool | Sequence[str]]

SERVICE: Final = "graphquake"
# The only protocol of the exporter that the extra `otlp` installs.
PROTOCOL: Final = "http/protobuf"
PROTOCOL_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
# The most characters of a reason why spans were lost.
REASON_MAX: Final = 240
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class _Counting(SpanExporter):
    """Passes spans on, and counts those that could not be sent."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.sent = 0
        self.lost = 0
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans. Older exporters raise an error if they can't, which the SDK logs."""
        self.lost += len(spans)
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.lost -= len(spans)
            self.sent += len(spans)
        return result

    def shutdown(self) -> None:
        """End the exporter."""
        self._exporter.shutdown()


class _FirstWarning(logging.Handler):
    """Keeps the first warning of the SDK, which would otherwise write into the progress of the search."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of the first record, with its error."""
        error = f" {record.exc_info[1]}" if record.exc_info else ""
        self.text = self.text or f"{record.getMessage()}{error}"[:REASON_MAX]


class Traces:
    """The traces of a session. Close it at the end, so that the last spans are sent.

    Raises:
        InputError: if a variable asks for another protocol than `PROTOCOL`.
    """

    def __init__(self) -> None:
        for name in PROTOCOL_VARIABLES:
            if found := os.environ.get(name):
                if found != PROTOCOL:
                    raise InputError(f'{name}: found "{found}", expected {PROTOCOL}')
                break
        self._logger, self._warning = logging.getLogger("opentelemetry"), _FirstWarning()
        self._propagates, self._logger.propagate = self._logger.propagate, False
        self._logger.addHandler(self._warning)
        self._exporter = _Counting(OTLPSpanExporter())
        named = OTELResourceDetector().detect().attributes.get(SERVICE_NAME)
        resource = Resource.create({} if named else {SERVICE_NAME: SERVICE})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self.tracer = self._provider.get_tracer(SERVICE)

    def close(self) -> str:
        """Send the last spans.

        Returns:
            A line about the spans that were lost, or the empty text.
        """
        self._provider.shutdown()
        self._logger.removeHandler(self._warning)
        self._logger.propagate = self._propagates
        if not (lost := self._exporter.lost):
            return ""
        all_ = lost + self._exporter.sent
        return f"traces: {lost} of {all_} spans could not be sent: {self._warning.text}"


class RunTracer:
    """Makes a trace of each run (see `RunObserver`).

    Args:
        tracer: makes the spans.
        about: attributes of each run.
    """

    def __init__(self, tracer: Tracer, about: Attributes) -> None:
        self._tracer = tracer
        self._about = about

    def begin(self, plan: Plan, why: str) -> _TracedRun:
        """See `RunObserver.begin`."""
        about = {"graphquake.plan": str(plan), "graphquake.why": why}
        return _TracedRun(self._tracer, {**self._about, **about})


class _TracedRun:
    """The trace of one run."""

    def __init__(self, tracer: Tracer, about: Attributes) -> None:
        self._tracer = tracer
        self._about = about
        self._begun_ns = time.time_ns()

    def show(self, status: RunStatus) -> None:
        """See `ObservedRun.show`. A trace is made at the end."""

    def end(self, run: LiveRun | None) -> None:
        """See `ObservedRun.end`. A run without a history has no spans but its own."""
        root = self._tracer.start_span(
            "run", Context(), attributes=self._about, start_time=self._begun_ns
        )
        if run is None:
            root.set_attribute("graphquake.verdict", "none")
        else:
            _describe(root, run)
            _HistorySpans(self._tracer, root, run.history).make(self._begun_ns)
        root.end()


def _describe(root: Span, run: LiveRun) -> None:
    """Enter the verdict and the requests of a run. A run that broke a promise has the status of an error."""
    verdict, requests = run.verdict, run.history.requests
    root.set_attributes(
        {
            "graphquake.verdict": verdict.kind,
            "graphquake.violations": [str(one) for one in verdict.signatures],
            "graphquake.invalid_because": list(verdict.causes),
            "graphquake.folder": str(run.folder),
            "graphquake.used_graph": run.used,
            "graphquake.requests.sent": len(requests),
            "graphquake.requests.ok": sum(one.outcome == Outcome.OK for one in requests),
            "graphquake.requests.failed": sum(one.failed for one in requests),
        }
    )
    if verdict.kind == "broken":
        root.set_status(StatusCode.ERROR, "; ".join(map(str, verdict.signatures)))
    for one in verdict.violations:
        seen = {"graphquake.signature": str(one.signature), "graphquake.seen": one.seen}
        root.add_event("violation", seen, _ns(run.history, one.at_s))


def _ns(history: History, at_s: float) -> int:
    """The wall-clock time of a moment on the run's clock, in nanoseconds since the epoch."""
    began = history.host.began or _EPOCH
    return (began - _EPOCH) // _MICROSECOND * 1000 + round(at_s * 1e9)


class _HistorySpans:
    """The spans of one history, below the span of its run."""

    def __init__(self, tracer: Tracer, root: Span, history: History) -> None:
        self._tracer = tracer
        self._root = root
        self._history = history

    def make(self, begun_ns: int) -> None:
        """Make all spans. `begun_ns` is the time at which the whole run began, with the start of its graph."""
        self._replicas(begun_ns)
        begins = [(event.phase, event.at_s) for event in self._history.of(PhaseBegan)]
        if begins:
            start = self._tracer.start_span("start", _below(self._root), start_time=begun_ns)
            start.end(max(begun_ns, self._ns(begins[0][1])))
        plan = self._root
        for (name, begin_s), (_, end_s) in pairwise([*begins, ("", self._history.end_s)]):
            phase = self._span(self._root, name, begin_s, end_s, {})
            if name == "plan":
                plan = phase
        for step in self._history.of(StepDone):
            self._step(plan, step)
        self._faults()

    def _ns(self, at_s: float) -> int:
        return _ns(self._history, at_s)

    def _span(
        self, parent: Span, name: str, begin_s: float, end_s: float, about: Attributes
    ) -> Span:
        span = self._tracer.start_span(
            name, _below(parent), attributes=about, start_time=self._ns(begin_s)
        )
        span.end(self._ns(max(begin_s, end_s)))
        return span

    def _step(self, parent: Span, done: StepDone) -> None:
        about: Attributes = {
            "graphquake.step": str(done.step),
            "graphquake.number": done.number + 1,
            "graphquake.fault": done.fault,
            "graphquake.landed": done.landed,
            "graphquake.proof": done.proof,
        }
        self._span(parent, done.step.called, done.begun_s, done.at_s, about)

    def _faults(self) -> None:
        """Make a span for each fault that lasts. A kill has no more than the span of its step."""
        for fault in faults_of(self._history.events):
            if fault.landed_s is None or not fault.step.lasts_s:
                continue
            about: Attributes = {
                "graphquake.step": str(fault.step),
                "graphquake.number": fault.number + 1,
                "graphquake.target": fault.target,
                "graphquake.proof": fault.proof,
                "graphquake.end_proof": fault.end_proof,
            }
            # The end of the run undoes the faults that are still in force.
            end_s = self._history.end_s if fault.ended_s is None else fault.ended_s
            self._span(self._root, f"fault {fault.step.called}", fault.landed_s, end_s, about)

    def _replicas(self, since_ns: int) -> None:
        """Enter the starts, ends and panics of replicas as events of the run. Events of an earlier run of the same graph are left out."""
        names = {Spawned: "spawned", BecameReady: "ready", Died: "died", Panicked: "panicked"}
        for event in self._history.events:
            if (
                not isinstance(event, (Spawned, BecameReady, Died, Panicked))
                or self._ns(event.at_s) < since_ns
            ):
                continue
            about: dict[str, str | int | bool] = {
                "graphquake.replica": str(event.replica),
                "graphquake.incarnation": event.incarnation,
            }
            if isinstance(event, Died):
                about |= {"graphquake.how": event.how, "graphquake.aimed": event.aimed}
            self._root.add_event(names[type(event)], about, self._ns(event.at_s))


def _below(parent: Span) -> Context:
    return set_span_in_context(parent, Context())

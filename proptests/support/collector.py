"""A collector of OpenTelemetry traces that keeps what it receives."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """A collector that keeps what it receives."""

    def __init__(self) -> None:
        self.received: list[ExportTraceServiceRequest] = []
        kept = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    kept.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """End the collector."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def spans(self) -> list[Span]:
        """All spans that came."""
        return [
            span
            for request in self.received
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def service(self) -> str:
        """The name of the service that sent them."""
        (resource,) = {
            str(values_of(r.resource.attributes)["service.name"])
            for q in self.received
            for r in q.resource_spans
        }
        return resource


def values_of(attributes: Any) -> dict[str, Any]:
    """The attributes of a span or of its service."""

    def value(one: Any) -> Any:
        name = one.WhichOneof("value")
        found = getattr(one, name)
        return [value(each) for each in found.values] if name == "array_value" else found

    return {one.key: value(one.value) for one in attributes}

"""The option `--chaos-traces`: checks that the extra `otlp` is installed, and sends the traces of one search.

The always-loaded plugin imports this module, so it imports OpenTelemetry only when traces are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from graphquake.machines.frontends.options import TRACES

if TYPE_CHECKING:
    from graphquake.machines.runners.run_observer import RunObserver
    from graphquake.machines.sessions.traces import Traces


def open_traces() -> Traces:
    """Open the way to the collector.

    Raises:
        InputError: if OpenTelemetry is not installed, or a variable `OTEL_*` asks for something that is not supported.
    """
    from graphquake.harness.errors import InputError  # noqa: PLC0415

    try:
        from graphquake.machines.sessions.traces import Traces  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise InputError(
            f"{TRACES}: {error.name} is not installed; install it with: pip install 'graphquake[otlp]'"
        ) from None
    return Traces()


@contextmanager
def traced(
    config: pytest.Config, graph: str, shard: int, say: Callable[[str], None]
) -> Iterator[tuple[RunObserver, ...]]:
    """Yield the observer that makes traces, or none if none were asked for. At the end, send the last spans.

    Args:
        config: pytest's settings.
        graph: the name of the search's graph.
        shard: the part of the search that this process does, from 0.
        say: receives a line of text if spans were lost.
    """
    if not config.getoption(TRACES):
        yield ()
        return
    traces = open_traces()
    from graphquake.machines.sessions.traces import RunTracer  # noqa: PLC0415

    try:
        about: dict[str, str | int] = {"graphquake.graph": graph, "graphquake.shard": shard + 1}
        yield (RunTracer(traces.tracer, about),)
    finally:
        if lost := traces.close():
            say(lost)

"""Ask an endpoint of metrics as a Prometheus server does."""

from __future__ import annotations

import socket
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def scraped(url: str) -> dict[str, float]:
    """Ask as a Prometheus server does: each metric with its labels, and its value."""
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - an address of ours
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    assert "# TYPE graphquake_runs_total counter" in text
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for name, labels, value, *_ in family.samples:
            said = ",".join(f"{key}={text}" for key, text in labels.items())
            found[f"{name.removeprefix('graphquake_')}{{{said}}}"] = value
    return found

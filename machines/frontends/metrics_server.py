"""The endpoint of `--chaos-metrics`: serves the numbers of the searches of this pytest session in Prometheus' text format.

A thread of its own serves it, in the process that the user has started. With `pytest -n`, that is the controller of pytest-xdist.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server

from graphquake.harness.errors import InputError
from graphquake.machines.frontends.options import METRICS
from graphquake.machines.sessions.metrics import SearchCollector

LOOPBACK: Final = "127.0.0.1"
PORT_MAX: Final = 65535
_ADDRESS: Final = re.compile(r"(?:(?P<host>[\w.-]+|\[[\da-fA-F:.]+\]):)?(?P<port>\d{1,5})\Z")


def address_of(text: str) -> tuple[str, int]:
    """The host and the port that the option names. Without a host, only programs on this machine reach the endpoint.

    Raises:
        InputError: if the text is neither `PORT` nor `HOST:PORT`.
    """
    found = _ADDRESS.match(text)
    if not found or not 1 <= int(found["port"]) <= PORT_MAX:
        raise InputError(
            f'{METRICS}: found "{text}", expected a port from 1 to {PORT_MAX}, or HOST:PORT'
        )
    return (found["host"] or LOOPBACK).strip("[]"), int(found["port"])


class MetricsServer:
    """Serves the metrics of the searches that write to a results folder, until it is closed.

    Args:
        text: the value of the option, `PORT` or `HOST:PORT`.
        results: the results folder.

    Attributes:
        url: the address of the metrics.

    Raises:
        InputError: if the text is not an address, or if nothing can be served there, e.g. because the port is in use.
    """

    def __init__(self, text: str, results: Path) -> None:
        host, port = address_of(text)
        registry = CollectorRegistry()
        registry.register(SearchCollector(results))
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise InputError(
                f"{METRICS}: {host} port {port} can't be used: {error.strerror}; expected a free port of this machine"
            ) from None
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"

    def close(self) -> None:
        """End the endpoint."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

"""Requests to a real API server that block until they are answered.

Tests read and change objects in the middle of a line, as they do with the store of the test cluster. On one machine an answer takes a few
milliseconds.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from graphquake.harness.kubernetes.api.kubeconfig import Access
from graphquake.harness.kubernetes.api.objects import Json

from support.cluster.store import Refused

ANSWER_WITHIN_S: Final = 30.0
BAD_REQUEST: Final = 400


class Rest:
    """A connection to an API server.

    Args:
        access: the API server.
        headers: the headers that show who asks.
    """

    def __init__(self, access: Access, headers: Mapping[str, str]) -> None:
        self._access = access
        self._headers = dict(headers)
        self._open: http.client.HTTPConnection | None = None

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, form: str = "application/json"
    ) -> Json:  # fmt: skip
        """Send a request and return the answer.

        Raises:
            Refused: if the API server refuses the request.
            OSError, http.client.HTTPException: if it is away.
        """
        data = None if body is None else json.dumps(body)
        headers = {**self._headers, "Accept": "application/json", "Content-Type": form}
        with suppress(OSError, http.client.HTTPException):
            # The API server may have closed a connection that was idle.
            if self._open is not None:
                return self._answer(self._open, method, path, data, headers)
        self.close()
        self._open = self._connected()
        return self._answer(self._open, method, path, data, headers)

    def close(self) -> None:
        """Close the connection."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _connected(self) -> http.client.HTTPConnection:
        url = urlsplit(self._access.server)
        host = url.hostname or ""
        if self._access.tls is None:
            return http.client.HTTPConnection(host, url.port, timeout=ANSWER_WITHIN_S)
        return http.client.HTTPSConnection(
            host, url.port, timeout=ANSWER_WITHIN_S, context=self._access.tls
        )

    def _answer(
        self, way: http.client.HTTPConnection, method: str, path: str, data: str | None, headers: dict[str, str]
    ) -> Json:  # fmt: skip
        way.request(method, path, data, headers)
        answer = way.getresponse()
        said: Json = json.loads(answer.read() or b"{}")
        if answer.status >= BAD_REQUEST:
            raise Refused(answer.status, said.get("reason", ""), said.get("message", ""))
        return said

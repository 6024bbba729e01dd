"""Show the API server who sends a request: by a token, a file with a token, a password, or an exec plugin.

Client certificates are part of the TLS context, not of a request (see `kubeconfig`). An exec plugin may give a certificate as well.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from graphquake.harness.errors import InputError
from graphquake.harness.kubernetes.api.objects import wall_s

# A file with a token is read again after this time. The cluster replaces the token of a pod long before it ends.
FILE_AGE_MAX_S: Final = 60.0
# The time limit for an exec plugin. A plugin may have to ask a cloud's server.
PLUGIN_WITHIN_S: Final = 60.0
# A token of a plugin is replaced this long before it ends.
EARLY_S: Final = 30.0


class Credentials(Protocol):
    """Gives the headers that show who sends a request."""

    async def headers(self) -> Mapping[str, str]:
        """Return the headers for the next request."""
        ...

    def forget(self) -> None:
        """Forget what was read, because the API server did not accept it."""
        ...


@dataclass
class Fixed:
    """Headers that do not change: a token, a password, or none at all."""

    fixed: Mapping[str, str] = field(default_factory=dict)

    async def headers(self) -> Mapping[str, str]:
        """See `Credentials.headers`."""
        return self.fixed

    def forget(self) -> None:
        """There is nothing else to send."""


def bearer(token: str) -> dict[str, str]:
    """Return the header of a token."""
    return {"Authorization": f"Bearer {token}"}


def basic(user: str, password: str) -> dict[str, str]:
    """Return the header of a user name and a password."""
    both = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {both}"}


@dataclass
class TokenFile:
    """A token in a file that the cluster replaces now and then."""

    path: Path
    _token: str = ""
    _read_s: float = 0.0

    async def headers(self) -> Mapping[str, str]:
        """See `Credentials.headers`.

        Raises:
            InputError: if the file can't be read.
        """
        if not self._token or time.monotonic() - self._read_s > FILE_AGE_MAX_S:
            try:
                self._token = self.path.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise InputError(f"{self.path}: the file of a token: {error.strerror}") from None
            self._read_s = time.monotonic()
        return bearer(self._token)

    def forget(self) -> None:
        """Read the file again before the next request."""
        self._token = ""


@dataclass
class ExecPlugin:
    """A program that prints credentials, as a cloud's command line tool does.

    Attributes:
        argv: the command line of the program.
        env: environment variables besides those of this process.
        version: the `apiVersion` of what the program prints.
        hint: how to install the program, for the error text. May be empty.
        tls: receives the certificate, if the program gives one.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    version: str
    hint: str
    tls: ssl.SSLContext | None
    _headers: Mapping[str, str] | None = None
    _until_s: float = 0.0
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def headers(self) -> Mapping[str, str]:
        """See `Credentials.headers`.

        Raises:
            InputError: if the program fails, or prints something else.
        """
        async with self._one_at_a_time:
            if self._headers is None or time.time() > self._until_s - EARLY_S:
                self._take(await self._run())
            assert self._headers is not None
            return self._headers

    def forget(self) -> None:
        """Run the program again before the next request."""
        self._headers = None

    def _error(self, said: str) -> InputError:
        hint = f"; {self.hint.strip()}" if self.hint else ""
        return InputError(f'the exec plugin "{self.argv[0]}" of the kubeconfig {said}{hint}')

    async def _run(self) -> str:
        asked = {"apiVersion": self.version, "kind": "ExecCredential", "spec": {"interactive": False}}  # fmt: skip
        env = {**os.environ, **self.env, "KUBERNETES_EXEC_INFO": json.dumps(asked)}
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *self.argv, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
            )
        except OSError as error:
            raise self._error(f"could not be started: {error.strerror}") from None
        try:
            out, err = await asyncio.wait_for(process.communicate(), PLUGIN_WITHIN_S)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise self._error(f"gave no answer within {PLUGIN_WITHIN_S:g} s") from None
        if process.returncode:
            last = err.decode("utf-8", "replace").strip().splitlines()[-1:] or [""]
            raise self._error(f"ended with exit status {process.returncode}: {last[0]}")
        return out.decode("utf-8", "replace")

    def _take(self, text: str) -> None:
        try:
            status: dict[str, Any] = json.loads(text)["status"]
            until_s = wall_s(status["expirationTimestamp"]) if "expirationTimestamp" in status else 0.0  # fmt: skip
        except (ValueError, KeyError, TypeError):
            raise self._error("did not print an ExecCredential with a status") from None
        certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
        if not (status.get("token") or (certificate and key)):
            raise self._error("gave neither a token nor a certificate with its key")
        if certificate and key and self.tls is not None:
            load_certificate(self.tls, certificate.encode(), key.encode())
        self._headers = bearer(status["token"]) if status.get("token") else {}
        self._until_s = until_s or float("inf")


def load_certificate(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load a client certificate and its key, both as PEM. They are on the disk only for a moment, in a file that nobody else can read.

    Raises:
        ssl.SSLError: if they are not valid, or do not belong together.
    """
    with tempfile.NamedTemporaryFile() as both:
        both.write(certificate + b"\n" + key)
        both.flush()
        tls.load_cert_chain(both.name)

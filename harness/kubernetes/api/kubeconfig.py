"""Find the API server and the credentials: from a kubeconfig, or from the files that a cluster puts into each pod.

The environment variable KUBECONFIG names one file or several. Of several entries with one name, the first one counts, as for `kubectl`.
Without that variable the file is `~/.kube/config`. Without any file, a process in a pod uses the pod's own service account.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import json
import os
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from graphquake.harness.errors import InputError
from graphquake.harness.kubernetes.api.credentials import (
    Credentials,
    ExecPlugin,
    Fixed,
    TokenFile,
    basic,
    bearer,
    load_certificate,
)
from graphquake.harness.spec.table import Table, did_you_mean

POD_FOLDER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Access:
    """The way to one API server.

    Attributes:
        server: the base URL of the API server.
        context: the name of the context. `in-cluster` for a process in a pod.
        namespace: the namespace of the context, `default` if it names none.
        credentials: shows who sends a request.
        tls: how the API server is checked, and the client certificate. None for a server without TLS.
    """

    server: str
    context: str
    namespace: str
    credentials: Credentials
    tls: ssl.SSLContext | None = None


def read_access(
    context: str = "", env: Mapping[str, str] = os.environ, pod_folder: Path = POD_FOLDER
) -> Access:
    """Return the way to an API server.

    Args:
        context: the name of a context. Empty for the current context of the kubeconfig.
        env: environment variables.
        pod_folder: the folder in which a pod finds its service account.

    Raises:
        InputError: if there is no kubeconfig, or a part of it is wrong or missing. The error names the file and the key.
    """
    home = Path(env.get("HOME", "/")) / ".kube" / "config"
    named = [Path(one) for one in env.get("KUBECONFIG", "").split(os.pathsep) if one]
    files = [path for path in named or [home] if path.is_file()]
    if files:
        return _from_files(files, context)
    if "KUBERNETES_SERVICE_HOST" in env and (pod_folder / "token").is_file():
        return _in_cluster(env, pod_folder)
    where = ", ".join(map(str, named)) or str(home)
    raise InputError(f"{where}: no such kubeconfig; set KUBECONFIG to the path of one")


def _in_cluster(env: Mapping[str, str], folder: Path) -> Access:
    host, port = env["KUBERNETES_SERVICE_HOST"], env.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    mine = folder / "namespace"
    namespace = mine.read_text(encoding="utf-8").strip() if mine.is_file() else "default"
    return Access(
        f"https://{host}:{port}", "in-cluster", namespace, TokenFile(folder / "token"), tls
    )


def parsed_yaml(path: Path) -> Iterator[object]:
    """Yield the documents of a YAML or JSON file.

    Raises:
        InputError: if the file can't be read, is not valid, or is YAML while no reader of YAML is installed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read: {error}") from None
    try:
        yield json.loads(text)
    except ValueError:
        try:
            yaml = importlib.import_module("yaml")
        except ImportError:
            raise InputError(
                f'{path}: is YAML, and the package "pyyaml" is missing: pip install "graphquake[kubernetes]"'
            ) from None
        try:
            yield from (one for one in yaml.safe_load_all(text) if one is not None)
        except yaml.YAMLError as error:
            raise InputError(f"{path}: is not valid YAML: {error}") from None


class _Entries:
    """The named entries of all kubeconfig files, each with the folder of its file. The first entry of a name counts."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.current = ""
        self._found: dict[str, dict[str, tuple[Table, Path]]] = {}
        self.files = ", ".join(map(str, files))
        for path in files:
            for document in parsed_yaml(path):
                if not isinstance(document, dict):
                    raise InputError(f"{path}: is not a kubeconfig: found no keys")
                top = Table(str(path), document)
                self.current = self.current or str(document.get("current-context") or "")
                for kind in ("clusters", "users", "contexts"):
                    self._add(top, kind, path.parent)

    def _add(self, top: Table, kind: str, folder: Path) -> None:
        entries = self._found.setdefault(kind, {})
        for row in top.tables(kind) if top.values.get(kind) is not None else ():
            name = row.text("name")
            entries.setdefault(name, (row.table(kind[:-1]), folder))

    def entry(self, kind: str, name: str, asked_by: str) -> tuple[Table, Path]:
        entries = self._found.get(kind, {})
        if name not in entries:
            hint = did_you_mean(name, entries)
            raise InputError(f'{self.files}: {kind}: "{name}" is missing, and {asked_by}{hint}')
        return entries[name]


def _from_files(files: list[Path], context: str) -> Access:
    entries = _Entries(files)
    name = context or entries.current
    if not name:
        raise InputError(f"{entries.files}: current-context: is missing; name a context")
    asked = "the graph file names this context" if context else "current-context names it"
    chosen, _ = entries.entry("contexts", name, asked)
    by = f'the context "{name}" names it'
    cluster, cluster_folder = entries.entry("clusters", chosen.text("cluster"), by)
    user, user_folder = entries.entry("users", chosen.text("user"), by)
    for key in ("proxy-url", "tls-server-name"):
        if key in cluster:
            raise cluster.error(key, 'is not supported; run "kubectl proxy" and use its address')
    server = cluster.text("server").rstrip("/")
    if urlsplit(server).scheme not in {"http", "https"}:
        raise cluster.error("server", f'found "{server}", expected a URL with http or https')
    tls = _tls(cluster, cluster_folder) if server.startswith("https") else None
    credentials = _credentials(user, user_folder, tls)
    return Access(server, name, chosen.text("namespace", "default"), credentials, tls)


def _bytes_of(table: Table, key: str, folder: Path) -> bytes | None:
    """Return the content of a key that has two forms: `KEY-data` holds it in base64, `KEY` names a file. None if both are absent."""
    if f"{key}-data" in table and table.values[f"{key}-data"]:
        try:
            return base64.b64decode(table.text(f"{key}-data"), validate=True)
        except binascii.Error:
            raise table.error(f"{key}-data", "is not valid base64") from None
    if not table.text(key, "").strip():
        return None
    path = folder / table.text(key)
    try:
        return path.read_bytes()
    except OSError as error:
        raise table.error(key, f"{path}: {error.strerror}") from None


def _tls(cluster: Table, folder: Path) -> ssl.SSLContext:
    authority = _bytes_of(cluster, "certificate-authority", folder)
    try:
        tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
    except (ssl.SSLError, UnicodeDecodeError, ValueError):
        raise cluster.error("certificate-authority", "is not a valid certificate") from None
    if cluster.flag("insecure-skip-tls-verify", default=False):
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls


def _credentials(user: Table, folder: Path, tls: ssl.SSLContext | None) -> Credentials:
    certificate = _bytes_of(user, "client-certificate", folder)
    key = _bytes_of(user, "client-key", folder)
    if (certificate is None) != (key is None):
        missing = "client-key" if key is None else "client-certificate"
        raise user.error(missing, "is missing: a client certificate needs its key")
    if certificate is not None and key is not None and tls is not None:
        try:
            load_certificate(tls, certificate, key)
        except (ssl.SSLError, OSError):
            raise user.error(
                "client-certificate", "is not valid, or client-key does not belong to it"
            ) from None
    if "exec" in user:
        return _plugin(user.table("exec"), folder, tls)
    if token := user.text("token", ""):
        return Fixed(bearer(token))
    if path := user.text("tokenFile", ""):
        return TokenFile(folder / path)
    if name := user.text("username", ""):
        return Fixed(basic(name, user.text("password", "")))
    if "auth-provider" in user:
        raise user.error("auth-provider", "is not supported any more; use an exec plugin")
    return Fixed()


def _plugin(table: Table, folder: Path, tls: ssl.SSLContext | None) -> ExecPlugin:
    command = table.text("command")
    # A command with a slash is relative to the folder of the kubeconfig. Other commands are looked up on the PATH.
    program = str(folder / command) if "/" in command else command
    args: list[Any] = list(table.texts("args") if table.values.get("args") is not None else ())
    rows = table.tables("env") if table.values.get("env") is not None else []
    env = {row.text("name"): str(row.values.get("value") or "") for row in rows}
    version = table.text("apiVersion", "client.authentication.k8s.io/v1")
    return ExecPlugin([program, *args], env, version, table.text("installHint", ""), tls)

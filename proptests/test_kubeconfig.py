"""Access to a Kubernetes API server: kubeconfigs, credentials and TLS."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.kubeconfig import Access, read_access
from graphquake.harness.kubernetes.api.objects import PODS

from support.prepared import Prepared, says, served


def config(folder: Path, user: dict[str, Any], **cluster: Any) -> dict[str, str]:
    """Write a kubeconfig. Return the environment that names it."""
    document = {
        "current-context": "one",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1", **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "n"}}],
    }
    folder.mkdir(exist_ok=True)
    (folder / "config").write_text(json.dumps(document))
    return {"KUBECONFIG": str(folder / "config")}


def sent(access: Access) -> str:
    """The header that shows who sends a request."""
    return asyncio.run(_headers(access)).get("Authorization", "")


async def _headers(access: Access) -> dict[str, str]:
    return dict(await access.credentials.headers())


@pytest.mark.simulated
def test_tokens_and_passwords(tmp_path: Path) -> None:
    """A token, a file with a token relative to the kubeconfig, and a password become headers."""
    (tmp_path / "token").write_text("from-file\n")
    access = read_access(env=config(tmp_path, {"token": "abc"}))
    assert (access.server, access.context, access.namespace) == ("https://127.0.0.1:1", "one", "n")
    assert sent(access) == "Bearer abc"
    assert sent(read_access(env=config(tmp_path, {"tokenFile": "token"}))) == "Bearer from-file"
    named = {"username": "me", "password": "pw"}
    secret = base64.b64encode(b"me:pw").decode()
    assert sent(read_access(env=config(tmp_path, named))) == f"Basic {secret}"


@pytest.mark.simulated
def test_the_first_entry_of_a_name_counts(tmp_path: Path) -> None:
    """KUBECONFIG may name several files. The first one that has an entry decides, as for kubectl."""
    first = config(tmp_path / "a", {"token": "first"})["KUBECONFIG"]
    second = config(tmp_path / "b", {"token": "second"})["KUBECONFIG"]
    assert sent(read_access(env={"KUBECONFIG": f"{second}:/nowhere:{first}"})) == "Bearer second"


@pytest.mark.simulated
def test_yaml_is_read(tmp_path: Path) -> None:
    """A kubeconfig in YAML, as every tool writes it."""
    pytest.importorskip("yaml")
    (tmp_path / "config").write_text(
        "current-context: x\n"
        "clusters:\n- name: c\n  cluster: {server: 'http://127.0.0.1:2'}\n"
        "users:\n- name: u\n  user:\n    token: t\n"
        "contexts:\n- name: x\n  context: {cluster: c, user: u}\n"
    )
    access = read_access(env={"KUBECONFIG": str(tmp_path / "config")})
    assert (access.server, access.namespace, access.tls) == (
        "http://127.0.0.1:2",
        "default",
        None,
    )


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("user", "cluster", "context", "said"),
    [
        ({}, {}, "two", 'contexts: "two" is missing, and the graph file names this context'),
        ({}, {"server": "tcp://x"}, "", 'cluster.server: found "tcp://x", expected a URL'),
        ({}, {"proxy-url": "http://p"}, "", "proxy-url: is not supported"),
        ({"client-certificate": "no.pem"}, {}, "", "client-certificate: .*no.pem: No such file"),
        ({"client-key-data": "!"}, {}, "", "client-key-data: is not valid base64"),
        ({"client-key-data": "aaaa"}, {}, "", "client-certificate: is missing"),
        ({"auth-provider": {}}, {}, "", "auth-provider: is not supported any more"),
        ({"exec": {}}, {}, "", "exec.command: is missing"),
        ({}, {"certificate-authority-data": "aaaa"}, "", "certificate-authority: is not a valid"),
    ],
)
def test_a_wrong_kubeconfig(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], context: str, said: str
) -> None:
    """Each error names the file and the key."""
    with pytest.raises(InputError, match=f"config: .*{said}"):
        read_access(context, config(tmp_path, user, **cluster))


@pytest.mark.simulated
def test_no_kubeconfig(tmp_path: Path) -> None:
    """Without a kubeconfig and outside a cluster, the error says what to set."""
    with pytest.raises(InputError, match="no such kubeconfig; set KUBECONFIG"):
        read_access(env={"HOME": str(tmp_path)}, pod_folder=tmp_path)


def plugin(folder: Path, body: str) -> dict[str, Any]:
    """A user with an exec plugin: a Python script beside the kubeconfig that counts its runs."""
    script = folder / "plugin"
    script.write_text(f"#!{sys.executable}\nimport json, os, sys\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    told = [{"name": "WHO", "value": "me"}]
    return {"exec": {"command": "./plugin", "args": ["get"], "env": told, "installHint": "Install it."}}  # fmt: skip


PRINTS = """
asked = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert asked["kind"] == "ExecCredential" and sys.argv[1] == "get"
count = os.path.getsize("COUNT") if os.path.exists("COUNT") else 0
open("COUNT", "a").write("x")
status = {"token": os.environ["WHO"] + str(count), "expirationTimestamp": "UNTIL"}
print(json.dumps({"kind": "ExecCredential", "status": status}))
"""


def test_an_exec_plugin(tmp_path: Path) -> None:
    """A plugin is asked once while its token is valid, again when the token is refused, and each time if it has ended."""

    async def body(until: str) -> list[str]:
        count = tmp_path / f"count{until[:4]}"
        user = plugin(tmp_path, PRINTS.replace("COUNT", str(count)).replace("UNTIL", until))
        access = read_access(env=config(tmp_path, user))
        got = [(await _headers(access))["Authorization"] for _ in range(2)]
        access.credentials.forget()
        return [*got, (await _headers(access))["Authorization"]]

    assert asyncio.run(body("2999-01-01T00:00:00Z")) == ["Bearer me0", "Bearer me0", "Bearer me1"]
    assert asyncio.run(body("2001-01-01T00:00:00Z")) == ["Bearer me0", "Bearer me1", "Bearer me2"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sys.exit('log in first')", "ended with exit status 1: log in first; Install it."),
        ("print('hello')", "did not print an ExecCredential"),
        ("print('{\"status\": {}}')", "gave neither a token nor a certificate"),
    ],
)
def test_an_exec_plugin_that_fails(tmp_path: Path, body: str, said: str) -> None:
    """The error names the plugin, repeats its last line, and tells how to install it."""
    access = read_access(env=config(tmp_path, plugin(tmp_path, body)))
    with pytest.raises(InputError, match=said):
        sent(access)


def test_a_refused_token_is_replaced_once(tmp_path: Path) -> None:
    """After an answer 401 the token is read again, and the request is repeated once."""
    (tmp_path / "token").write_text("old")

    async def body() -> None:
        server = Prepared(says({}, 401), says({"kind": "Pod"}), says({"message": "no"}, 401))
        async with served(server) as client:
            access = read_access(
                env=config(tmp_path, {"tokenFile": "token"}, server=client.access.server)
            )
            async with Client(access) as mine:
                await access.credentials.headers()
                (tmp_path / "token").write_text("new")
                await mine.get(PODS, "n", "a")
                with pytest.raises(ApiError, match="does not accept these credentials"):
                    await mine.get(PODS, "n", "a")
        told = [one.headers["Authorization"] for one in server.asked]
        assert told == ["Bearer old", "Bearer new", "Bearer new", "Bearer new"]

    asyncio.run(body())


def test_in_a_cluster(tmp_path: Path) -> None:
    """A process in a pod finds its token, the namespace and the authority in the pod's own files."""
    _, authority = certificates(tmp_path)
    (tmp_path / "token").write_text("pod-token")
    (tmp_path / "ca.crt").write_text(authority.read_text())
    (tmp_path / "namespace").write_text("mine\n")
    env = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443", "HOME": "/no"}
    access = read_access(env=env, pod_folder=tmp_path)
    assert (access.server, access.namespace) == ("https://[fd00::1]:6443", "mine")
    assert sent(access) == "Bearer pod-token"


# -------------------------------------------------------------------------------------------------------------- TLS


def certificates(folder: Path) -> tuple[Path, Path]:
    """A key, and a certificate for 127.0.0.1 that is its own authority. It serves as the certificate of a client, too."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=me"
        f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    )
    try:
        subprocess.run(command.split(), check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not a program on this machine")
    return key, certificate


@pytest.fixture
def tls_user(tmp_path: Path) -> tuple[ssl.SSLContext, Path, Path]:
    """The context of a server that asks for a client certificate, with a key and its certificate."""
    key, certificate = certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate))
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    return context, key, certificate


def test_a_client_certificate(tmp_path: Path, tls_user: tuple[ssl.SSLContext, Path, Path]) -> None:
    """The server is checked by its authority, and gets the client's certificate. Without the authority there is no connection."""
    context, key, certificate = tls_user
    as_data = base64.b64encode(certificate.read_bytes()).decode()
    user = {"client-certificate-data": as_data, "client-key": str(key)}

    async def body() -> None:
        server = Prepared(says({"kind": "Pod"}))
        async with served(server, context) as plain:
            url = plain.access.server.replace("http:", "https:")
            trusted = read_access(env=config(tmp_path, user, server=url, **{"certificate-authority": "cert.pem"}))  # fmt: skip
            async with Client(trusted, patience_s=0.2) as client:
                assert await client.get(PODS, "n", "a") == {"kind": "Pod"}
            unknown = read_access(env=config(tmp_path, user, server=url))
            async with Client(unknown, patience_s=9) as client:
                with pytest.raises(ApiError, match="certificate"):
                    await client.get(PODS, "n", "a")

    asyncio.run(body())

"""Start etcd, kube-apiserver and kube-controller-manager on this machine, until Ctrl-C. SIGHUP restarts the API server.

`python -m support.real_cluster.servers PROGRAMS FOLDER` prints the line to set for the tests. PROGRAMS is a folder with
`kube-apiserver` and `kube-controller-manager`. `etcd` is looked up there, and then on the PATH.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Final

START_WITHIN_S: Final = 180.0
STOP_WITHIN_S: Final = 20.0
CONFIG: Final = "GRAPHQUAKE_TEST_KUBECONFIG"
# The file beside the kubeconfig with the pid of this process.
PID: Final = "pid"


def free_port() -> int:
    """A port at which nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


class Servers:
    """The three programs. `start` and `stop` them."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._etcd, self._peer, self._port = free_port(), free_port(), free_port()
        self._token = secrets.token_hex(16)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.config = folder / "admin.json"
        # One certificate that signs itself, for TLS, and its key, also for the tokens of service accounts.
        self._key, self._certificate = folder / "server.key", folder / "server.crt"

    def start(self) -> None:
        """Start all programs, and wait until the API server is ready."""
        self._folder.mkdir(parents=True, exist_ok=True)
        asked = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tests"]
        argv = [*asked, "-days", "30", "-addext", "subjectAltName=IP:127.0.0.1"]
        argv += ["-keyout", str(self._key), "-out", str(self._certificate)]
        subprocess.run(argv, check=True, capture_output=True)
        (self._folder / "tokens.csv").write_text(f'{self._token},admin,admin,"system:masters"\n')
        self.config.write_text(json.dumps(self._kubeconfig()))
        etcd = f"http://127.0.0.1:{self._etcd}"
        self._run(
            "etcd", f"--data-dir={self._folder / 'etcd'}", f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}", f"--listen-peer-urls=http://127.0.0.1:{self._peer}",
            "--unsafe-no-fsync",
        )  # fmt: skip
        self.start_api()
        self._run(
            "kube-controller-manager", f"--kubeconfig={self.config}", "--leader-elect=false",
            f"--service-account-private-key-file={self._key}", "--port=0", f"--secure-port={free_port()}",
            f"--root-ca-file={self._certificate}",
            # Pods have loopback addresses here, which the older kind of Endpoints refuses.
            "--controllers=*,-endpoint",
        )  # fmt: skip

    def start_api(self) -> None:
        """Start the API server, and wait until it is ready."""
        self._run(
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self._etcd}",
            "--bind-address=127.0.0.1", f"--secure-port={self._port}", "--insecure-port=0",
            f"--tls-cert-file={self._certificate}", f"--tls-private-key-file={self._key}",
            f"--cert-dir={self._folder}", "--authorization-mode=RBAC",
            f"--token-auth-file={self._folder / 'tokens.csv'}", "--allow-privileged=true",
            f"--service-account-key-file={self._key}",
            f"--service-account-signing-key-file={self._key}",
            "--service-account-issuer=https://kubernetes.default.svc", "--api-audiences=tests",
            "--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none",
        )  # fmt: skip
        until_s = time.monotonic() + START_WITHIN_S
        tls = ssl.create_default_context(cafile=str(self._certificate))
        while True:
            try:
                ask = urllib.request.Request(f"https://127.0.0.1:{self._port}/readyz")
                ask.add_header("Authorization", f"Bearer {self._token}")
                with urllib.request.urlopen(ask, context=tls, timeout=5):  # noqa: S310 # a fixed scheme
                    return
            except OSError as error:
                ended = self._running["kube-apiserver"].poll() is not None
                if ended or time.monotonic() > until_s:
                    raise SystemExit(f"kube-apiserver is not ready: {error}") from None
                time.sleep(0.2)

    def restart_api(self) -> None:
        """Kill the API server, and start it again."""
        self._running["kube-apiserver"].kill()
        self._running["kube-apiserver"].wait()
        self.start_api()

    def stop(self) -> None:
        """End all programs."""
        for one in reversed(self._running.values()):
            one.terminate()
            try:
                one.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()

    def _run(self, name: str, *args: str) -> None:
        here = self._programs / name
        program = str(here) if here.is_file() else shutil.which(name)
        if program is None:
            raise SystemExit(f"{name}: is neither in {self._programs} nor on the PATH")
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen([program, *args], stdout=log, stderr=log)

    def _kubeconfig(self) -> dict[str, object]:
        server = f"https://127.0.0.1:{self._port}"
        cluster = {"server": server, "certificate-authority": str(self._certificate)}
        context = {"cluster": "real", "user": "admin"}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "real",
            "clusters": [{"name": "real", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self._token}}],
            "contexts": [{"name": "real", "context": context}],
        }


async def main(programs: Path, folder: Path) -> None:
    """Run the servers until Ctrl-C or SIGTERM."""
    servers = Servers(programs, folder)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        servers.start()
        (folder / PID).write_text(str(os.getpid()))
        loop.add_signal_handler(signal.SIGHUP, servers.restart_api)
        print(f"export {CONFIG}={servers.config}", flush=True)
        await stop.wait()
    finally:
        servers.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))

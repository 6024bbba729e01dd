"""Manifests for the test cluster."""

from __future__ import annotations

import sys
from typing import Any

from graphquake.harness.kubernetes.api.objects import Json

# A web server at the pod's own address, which also completes prompts, always with the same word. It prints a line when it gets SIGTERM, and
# ends a little later, but not while the file `HOLD` exists. With `GOSSIPS` in its environment, it asks each other pod of its kind ten times
# a second.
SERVER = """
import http.client, http.server, json, os, signal, sys, threading, time, urllib.request
def end(number, _):
    print(signal.Signals(number).name, flush=True)
    time.sleep(float(os.environ.get("LINGERS_S", "0.1")))
    while os.path.exists(os.environ.get("HOLD", "")):
        time.sleep(0.01)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end if "INTERRUPTS" in os.environ else signal.SIG_DFL)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def say(self, said, kind="text/plain"):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())
    def do_GET(self):
        self.say(f"{os.environ['POD_NAME']} says hello")
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        choice = {"index": 0, "text": "four", "finish_reason": "length"}
        whole = {"id": os.urandom(8).hex(), "choices": [choice]}
        if asked.get("stream"):
            return self.say(f"data: {json.dumps(whole)}\\n\\ndata: [DONE]\\n\\n", "text/event-stream")
        usage = {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}
        self.say(json.dumps(whole | {"usage": usage}), "application/json")
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass
def gossip(peer):
    try:
        way = http.client.HTTPConnection(peer, 8000, timeout=1)
        while True:
            way.request("GET", "/")
            way.getresponse().read()
            time.sleep(0.1)
    except (OSError, http.client.HTTPException):
        peers.discard(peer)
def meet():
    import ssl
    config, anyone = json.load(open(os.environ["KUBECONFIG"])), ssl._create_unverified_context()
    api = config["clusters"][0]["cluster"]["server"]
    ask = urllib.request.Request(api + "/api/v1/namespaces/lab/pods?labelSelector=app%3Dweb")
    ask.add_header("Authorization", "Bearer " + config["users"][0]["user"].get("token", ""))
    while True:
        try:
            pods = json.load(urllib.request.urlopen(ask, timeout=1, context=anyone))
            for one in pods["items"]:
                peer = one.get("status", {}).get("podIP")
                if peer not in (None, os.environ["POD_IP"], *peers):
                    peers.add(peer)
                    threading.Thread(target=gossip, args=[peer], daemon=True).start()
        except OSError:
            pass
        time.sleep(0.2)
peers = set()
if "GOSSIPS" in os.environ:
    threading.Thread(target=meet, daemon=True).start()
print("up", flush=True)
Server((os.environ["POD_IP"], 8000), Handler).serve_forever()
"""


def field(name: str, path: str) -> Json:
    """An environment variable with a field of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def container(*command: str, env: dict[str, str] | None = None, **more: Any) -> Json:
    """A container that knows the name and the address of its pod."""
    told = [{"name": key, "value": value} for key, value in (env or {}).items()]
    told += [field("POD_NAME", "metadata.name"), field("POD_IP", "status.podIP")]
    return {"name": "main", "image": "none", "command": [*command], "env": told, **more}


def server(**env: str) -> Json:
    """A container with a web server at port 8000."""
    probe = {"httpGet": {"port": 8000, "path": "/"}, "periodSeconds": 1}
    python = (sys.executable, "-I", "-S", "-c", SERVER)
    ports = [{"name": "http", "containerPort": 8000}]
    return container(*python, env=env, readinessProbe=probe, ports=ports)


def pod(name: str, *containers: Json, namespace: str = "default", **spec: Any) -> Json:
    """A pod."""
    meta = {"name": name, "namespace": namespace, "labels": {"app": name}}
    return {"metadata": meta, "spec": {"containers": [*containers], **spec}}


def deployment(
    name: str, replicas: int, *containers: Json, namespace: str = "default", **spec: Any
) -> Json:
    """A Deployment whose pods have the label `app`."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [*containers], **spec}}
    asked = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": asked,
    }


def service(name: str, namespace: str = "default") -> Json:
    """A Service of the pods with the label `app`."""
    ports = [{"port": 80, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": ports},
    }

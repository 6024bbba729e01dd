"""A router and its workers for the test cluster, with a planted bug: a worker that returns under its old name at a new port is not found.

Each worker listens at a port of its own choice, and tells the router its name and this port, again and again. The router forgets a worker
that does not answer. With the bug, it keeps the port of each name that it has ever known. A new pod has a new name, so a delete does no
harm. A container that is started again has the old name and a new port. From then on, the router sends requests to nowhere.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from graphquake.harness.kubernetes.api.objects import Json

from support.cluster.manifests import container, deployment

# The name of the cluster's kubeconfig is in the environment. A Service would do, if the test cluster had names for them.
PROGRAM = """
import http.client, http.server, json, os, signal, ssl, sys, threading, time, urllib.request
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
IP, NAME, IS_ROUTER, IS_FIXED = os.environ["POD_IP"], os.environ["POD_NAME"], "ROUTER" in os.environ, "FIXED" in os.environ
live, ports, turns, lock = {}, {}, iter(range(10**9)), threading.Lock()
def register(worker):
    with lock:
        if IS_FIXED:
            ports[worker["name"]] = worker["port"]
        live[worker["name"]] = worker["ip"], ports.setdefault(worker["name"], worker["port"])
def forward(body):
    with lock:
        names = sorted(live)
        name = names[next(turns) % len(names)] if names else ""
        there = live.get(name)
    if not there:
        return 503, b"no worker"
    try:
        way = http.client.HTTPConnection(*there, timeout=5)
        way.request("POST", "/", body)
        answer = way.getresponse()
        return answer.status, answer.read()
    except OSError:
        with lock:
            live.pop(name, None)
        return 502, b"the worker does not answer"
def complete(body):
    whole = {"id": os.urandom(8).hex(), "choices": [{"index": 0, "text": "four", "finish_reason": "length"}]}
    return 200, json.dumps(whole | {"usage": {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}}).encode()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def say(self, status, said):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def do_GET(self):
        self.say(200 if live or not IS_ROUTER else 503, b"{}")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/register":
            register(json.loads(body))
            return self.say(200, b"{}")
        self.say(*(forward(body) if IS_ROUTER else complete(body)))
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass
def tell(port):
    config, anyone = json.load(open(os.environ["KUBECONFIG"])), ssl._create_unverified_context()
    base = config["clusters"][0]["cluster"]["server"] + "/api/v1/namespaces/"
    pods = base + os.environ["POD_NAMESPACE"] + "/pods?labelSelector=app%3Drouter"
    ask = urllib.request.Request(pods)
    ask.add_header("Authorization", "Bearer " + config["users"][0]["user"].get("token", ""))
    while True:
        try:
            for pod in json.load(urllib.request.urlopen(ask, None, 1, context=anyone))["items"]:
                way = http.client.HTTPConnection(pod["status"]["podIP"], 8000, timeout=1)
                way.request("POST", "/register", json.dumps({"name": NAME, "ip": IP, "port": port}))
                way.getresponse().read()
        except (OSError, KeyError):
            pass
        time.sleep(0.3)
if not IS_ROUTER:
    work = Server((IP, 0), Handler)
    threading.Thread(target=work.serve_forever, daemon=True).start()
    threading.Thread(target=tell, args=[work.server_address[1]], daemon=True).start()
Server((IP, 8000), Handler).serve_forever()
"""

GRAPH = """
graph = "router"
serves = "router and worker"

[kubernetes]
namespace = "lab"
manifests = "router.json"
ready_s = 20

[roles.router]
select = "app=router"
ports = { http = 8000 }
entry = "http://{address.http}"
ready = { get = "http://{address.http}/" }

[roles.worker]
replicas = 2
select = "app=worker"
ports = { http = 8000 }
ready = { get = "http://{address.http}/" }

[load]
model = "m"
rate_per_s = 20
max_tokens = 4
stream = 0.0

[promises]
answers = { oracle = "support.fake_target:expected" }
error_window = { window_s = 1.0 }
recovery = { first_ok_s = 2, all_ok_s = 3 }
"""


def _role(name: str, replicas: int, **env: str) -> Json:
    """The Deployment of a role."""
    probe = {"httpGet": {"port": 8000, "path": "/"}, "periodSeconds": 1}
    main = container(sys.executable, "-I", "-S", "-c", PROGRAM, env=env, readinessProbe=probe)
    where = {"fieldRef": {"fieldPath": "metadata.namespace"}}
    main["env"].append({"name": "POD_NAMESPACE", "valueFrom": where})
    made = deployment(name, replicas, main, terminationGracePeriodSeconds=1)
    del made["metadata"]["namespace"]
    return made


def router_graph(folder: Path, **env: str) -> Path:
    """Write the graph file and its manifests into a folder. `FIXED` in `env` stands for a router without the bug."""
    items = [_role("router", 1, ROUTER="yes", **env), _role("worker", 2)]
    (folder / "router.json").write_text(json.dumps({"items": items}))
    path = folder / "router.toml"
    path.write_text(GRAPH)
    return path

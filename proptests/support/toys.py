"""Write graph files of the toy graph, and look for processes that a graph left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import closing
from functools import wraps
from pathlib import Path
from typing import Any

from graphquake.harness.observation.sock_diag import SockDiag
from graphquake.harness.processes.guard import pids, stat_of
from graphquake.harness.processes.procfs import OWNER, marks_of
from graphquake.harness.spec.graph import GraphSpec, load_graph

TOY = Path(__file__).with_name("toy.py")

FILE = """
graph = "toy"
serves = "front and worker"
restart = "{restart}"
network = "{network}"
faults = {faults}

[roles.front]
command = "{{python}} {toy} front --host {{host}} --port {{port.http}} --workers {{worker.address.http}} {front}"
entry = "http://{{host}}:{{port.http}}"
ready = {{ get = "{{entry}}/health", within_s = {within_s} }}
listed = {{ get = "{{entry}}/list", item = '"port"', roles = ["worker"] }}
metrics = "{{entry}}/metrics"

[roles.worker]
replicas = 2
command = "{{python}} {toy} work --host {{host}} --port {{port.http}} {worker}"
children = {children}
ready = {{ get = "http://{{host}}:{{port.http}}/health", body = "^ready$", within_s = {within_s} }}
stop_s = 2

[load]
model = "toy"
rate_per_s = 30
prompt_tokens = 16
max_tokens = 16
deadline_s = 3

[promises]
answers = {{ oracle = "support.toy:expected" }}
error_window = {{ window_s = 0.5 }}
recovery = {{ first_ok_s = {first_ok_s}, all_ok_s = 2.0 }}
no_leak = {{ grace_s = 0.3, gauges = ["toy_busy"] }}
{more}
"""


def toy_file(folder: Path, **changes: Any) -> Path:
    """Write a graph file of the toy: one front and two workers.

    Args:
        changes: `front` and `worker`: more arguments of their commands. `within_s`: the time to become ready. `faults`: the fault
            kinds that are drawn. `children`: the children of a worker that steps can aim at. `first_ok_s` and `more`: other promises.
    """
    words = {
        "toy": TOY, "front": "", "worker": "", "restart": "never", "network": "host", "within_s": 10, "more": "", "first_ok_s": 1.0,
        "faults": '["kill", "terminate", "stall"]', "children": '{ engine = "toy-engine" }',
    }  # fmt: skip
    path = folder / "toy.toml"
    path.write_text(FILE.format(**words | changes))
    return path


def toy_spec(folder: Path, **changes: Any) -> GraphSpec:
    """Write a graph file of the toy and read it. The arguments are those of `toy_file`."""
    return load_graph(str(toy_file(folder, **changes)))


def other_answer(prompt: str, max_tokens: int) -> str:
    """An oracle that the toy never agrees with."""
    del prompt
    return "!" * max_tokens


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in an event loop."""

    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


def left_of(pid: int) -> list[int]:
    """Return the processes of all graphs that a process launched. Zombies do not count."""
    found = []
    for other in pids():
        stat = stat_of(other)
        if stat and stat.runs and marks_of(other).get(OWNER, "").startswith(f"{pid}:"):
            found.append(other)
    return found


def are_open(ports: set[int]) -> set[int]:
    """Return those of these ports on which a process listens."""
    with closing(SockDiag()) as kernel:
        return ports & {one.local_port for one in kernel.listening_sockets()}

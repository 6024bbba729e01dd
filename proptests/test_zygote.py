"""Tests of replicas that are forked from a process with their modules: they behave like replicas that were started afresh."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import Spawned
from graphquake.harness.processes import zygote
from graphquake.harness.processes.guard import children_of, stat_of
from graphquake.harness.processes.procfs import marked, this_owner
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.processes.zygote import NAME
from graphquake.harness.spec.graph import GraphSpec, load_graph, read_graph
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.scope import TREE

from support.made import plan_of
from support.planted import FOLDER, planted
from support.toys import in_loop, left_of
from support.undisturbed import run_live

_PR_SET_CHILD_SUBREAPER = 36


def preloading(*modules: str) -> GraphSpec:
    """Return the reference graph with modules to preload for its prefill workers."""
    right = load_graph("reference")
    document = tomllib.loads(right.path.read_text(encoding="utf-8"))
    document["preload"] = []
    document["roles"]["prefill"]["preload"] = list(modules)
    return read_graph("preloading.toml", document, right.path)


def zygotes(guard: int) -> list[int]:
    """Return the pids of the zygotes of a guard."""
    return [pid for pid in children_of(guard) if (stat := stat_of(pid)) and stat.comm == NAME]


@in_loop
async def test_forked_replicas_keep_the_promises(tmp_path: Path) -> None:
    """With preloaded modules, kills, a stall, a respawn and a SIGTERM keep all promises, and no process is left."""
    plan = plan_of(
        "kill decode 0 process", "stall prefill 0 for 0.20 s", "respawn decode 0", "wait until ready",
        "kill decode 1 rank", "terminate decode 0",
    )  # fmt: skip
    run = await run_live(preloading("numpy", "graphquake.harness.reference.worker"), plan, tmp_path)
    assert run.verdict.kind == "kept", run.verdict
    assert left_of(os.getpid()) == []


@in_loop
async def test_copies_are_children_of_the_guard(tmp_path: Path) -> None:
    """All copies come from one zygote. Each has its own session and the guard as parent, and respawns work after the zygote's death."""
    async with Supervisor.launch(preloading("numpy"), tmp_path) as target:
        guard = target._guard.pid
        (zygote,) = zygotes(guard)
        mains = {e.replica: e.pid for e in target.log if isinstance(e, Spawned)}
        for name in (Replica("prefill", 0), Replica("decode", 0), Replica("decode", 1)):
            stat = stat_of(mains[name])
            assert stat is not None
            assert (stat.ppid, stat.session, stat.comm) == (guard, mains[name], "python")
        assert await target.leaks() == []
        os.kill(zygote, signal.SIGKILL)
        assert (await target.kill(Replica("decode", 0), TREE)).ok
        assert (await target.respawn(Replica("decode", 0))).ok
        assert await target.wait_ready(30.0)
    assert marked(this_owner("")) == []
    assert left_of(os.getpid()) == []


@in_loop
async def test_an_orphan_of_a_copy_is_a_leak(tmp_path: Path) -> None:
    """A child that outlives its forked replica breaks `no_leak`.

    It is found by its session, because /proc shows the zygote's marks for it.
    """
    bug = planted()["orphan_ranks"]
    document = dict(bug.spec.document)
    roles = {name: dict(role) for name, role in document["roles"].items()}
    for role in ("prefill", "decode"):
        command = re.sub(r"'[^']*orphan_ranks.py'", "-m orphan_ranks", roles[role]["command"])
        env = {"PYTHONPATH": str(FOLDER)}
        roles[role] |= {"command": command, "env": env, "preload": ["numpy"]}
    spec = read_graph("bug.toml", document | {"roles": roles}, bug.spec.path)
    run = await run_live(spec, bug.plan, tmp_path)
    assert tuple(map(str, run.verdict.signatures)) == ("no_leak / process",)
    assert left_of(os.getpid()) == []


def test_preloading_needs_a_python_command() -> None:
    """A role with `preload` whose command does not begin with Python is an InputError that names the key."""
    right = load_graph("reference")
    document = tomllib.loads(right.path.read_text(encoding="utf-8"))
    document["roles"]["registry"] |= {"command": "registry --port {port.rpc}"}
    with pytest.raises(
        InputError, match=r"wrong.toml: preload: .*begins with.*the command of registry does not"
    ):
        read_graph("wrong.toml", document, right.path)
    document["preload"] = []
    document["roles"]["registry"] |= {"preload": ["torch"]}
    with pytest.raises(InputError, match=r"roles\.registry\.preload.*begins with"):
        read_graph("wrong.toml", document, right.path)


@in_loop
async def test_a_script_is_run_as_python_would(tmp_path: Path) -> None:
    """A preloaded script can import modules from its own folder, as if Python had started it."""
    bug = planted()["one_replica"]
    assert bug.spec.preload
    run = await run_live(bug.spec, bug.plan, tmp_path)
    assert {one.promise for one in run.verdict.violations} == {"answers"}


def test_a_copy_can_name_its_children(tmp_path: Path) -> None:
    """A child process is found by its title, as vLLM's engines are. So a forked copy must still be able to set titles."""
    script = tmp_path / "titled.py"
    script.write_text(
        "import os, setproctitle\n"
        "if not os.fork():\n"
        "    setproctitle.setproctitle('some-engine')\n"
        "    print(open('/proc/self/cmdline').read(), flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    env = {"PATH": os.environ["PATH"]}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    namespaces: list[str] = []
    order = [[sys.executable, str(script)], env, str(tmp_path), str(tmp_path / "log"), namespaces]
    command = [sys.executable, zygote.__file__, str(theirs.fileno()), "json"]
    reaper = ctypes.CDLL(None).prctl
    reaper(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with (
        ours,
        theirs,
        subprocess.Popen(command, env=env | {"OTHER": "1"}, pass_fds=[theirs.fileno()]) as process,
    ):
        try:
            assert ours.recv(100) == b"0"
            ours.send(json.dumps(order).encode())
            os.waitpid(int(ours.recv(100)), 0)
        finally:
            process.kill()
    reaper(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    assert (tmp_path / "log").read_text().startswith("some-engine")

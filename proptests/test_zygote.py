"""Replicas that are forked from a process that has imported what they need: the same in all that a graph is promised."""

from __future__ import annotations

import os
import re
import signal
import tomllib
from pathlib import Path

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.history.events import Spawned
from graphquake.harness.processes.guard import children_of, stat_of
from graphquake.harness.processes.procfs import marked, this_owner
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.processes.zygote import NAME
from graphquake.harness.run.live import run_live
from graphquake.harness.spec.graph import GraphSpec, load_graph, read_graph
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.scope import TREE

from support.made import plan_of
from support.planted import FOLDER, planted
from support.toys import in_loop, left_of


def preloading(*modules: str) -> GraphSpec:
    """The reference graph, its workers with modules to preload."""
    right = load_graph("reference")
    document = tomllib.loads(right.path.read_text(encoding="utf-8"))
    document["preload"] = []
    document["roles"]["prefill"]["preload"] = list(modules)
    return read_graph("preloading.toml", document, right.path)


def zygotes(guard: int) -> list[int]:
    """The zygotes of a guard."""
    return [pid for pid in children_of(guard) if (stat := stat_of(pid)) and stat.comm == NAME]


@in_loop
async def test_a_run_is_the_same(tmp_path: Path) -> None:
    """Kills of all kinds, a stall, respawns, SIGTERM: every step lands, nothing is left."""
    plan = plan_of(
        "kill decode 0 process", "stall prefill 0 for 0.20 s", "respawn decode 0", "wait until ready",
        "kill decode 1 rank", "terminate decode 0",
    )  # fmt: skip
    run = await run_live(preloading("numpy", "graphquake.harness.reference.worker"), plan, tmp_path)
    assert run.verdict.kind == "kept", run.verdict
    assert left_of(os.getpid()) == []


@in_loop
async def test_copies_are_children_of_the_guard(tmp_path: Path) -> None:
    """One zygote for all; each copy in a session of its own, with the guard as its parent and its own environment."""
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
        assert await target.wait_ready(5.0)
    assert marked(this_owner("")) == []
    assert left_of(os.getpid()) == []


@in_loop
async def test_an_orphan_of_a_copy_is_a_leak(tmp_path: Path) -> None:
    """The marks of a copy are its zygote's: whose child it is, its session says."""
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


def test_it_is_for_python_modules() -> None:
    """Something else can not be forked from a Python."""
    right = load_graph("reference")
    document = tomllib.loads(right.path.read_text(encoding="utf-8"))
    document["roles"]["registry"] |= {"command": "registry --port {port.rpc}"}
    with pytest.raises(
        InputError, match=r"wrong.toml: preload: .*begins with.*registry's does not"
    ):
        read_graph("wrong.toml", document, right.path)
    document["preload"] = []
    document["roles"]["registry"] |= {"preload": ["torch"]}
    with pytest.raises(InputError, match=r"roles\.registry\.preload.*begins with"):
        read_graph("wrong.toml", document, right.path)


@in_loop
async def test_a_script_is_run_as_python_would(tmp_path: Path) -> None:
    """With its own folder to import from: the planted bugs are such scripts, and one of them counts its starts in a module beside it."""
    bug = planted()["one_replica"]
    assert bug.spec.preload
    run = await run_live(bug.spec, bug.plan, tmp_path)
    assert {one.promise for one in run.verdict.violations} == {"answers"}

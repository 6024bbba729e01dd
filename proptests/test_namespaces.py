"""Tests of graphs with network namespaces, with real processes and real namespaces."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from graphquake.harness.errors import GraphError, InputError
from graphquake.harness.processes import abilities
from graphquake.harness.processes.guard import descendants_of, pids
from graphquake.harness.processes.network.addresses import HUB, address_of
from graphquake.harness.processes.network.client import network_lacks
from graphquake.harness.processes.resources.ports import ports_of
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.run.first_answer import first_answer
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.spec.feasible import check_plan, left_out_text
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.spec.plan import Plan, parse_step
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.scope import TREE

from support.toys import in_loop, left_of, toy_file, toy_spec


def network_of(pid: int) -> str:
    """The network namespace of a process."""
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def hub_of(target: Supervisor) -> int:
    """The process that holds the namespaces."""
    return next(pid for pid in target.pids() if command_name(pid) == "gq-network")


def command_name(pid: int) -> str:
    """The name of a process in the kernel."""
    return Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()


@in_loop
async def test_each_replica_has_its_own_network(tmp_path: Path) -> None:
    """Replicas have a namespace and an address each. Clients reach the graph, work is counted, and all is gone at the end."""
    before = Path("/proc/net/dev").read_text(encoding="ascii").count("\n")
    spec = toy_spec(tmp_path, network="namespaces", worker="--children 1")
    async with Supervisor.launch(spec, tmp_path / "run") as target:
        assert target.entries() == [f"http://{address_of(0)}:{_port(target, 'front', 0)}"]
        running = {name: one.running for name, one in target._replicas.items()}
        spaces = {name: network_of(one.child.pid) for name, one in running.items() if one}
        hub = hub_of(target)
        assert len({*spaces.values(), network_of(hub), network_of(os.getpid())}) == 5
        # A child of a replica is in the namespace of the replica.
        worker = running[Replica("worker", 0)]
        assert worker is not None
        (child,) = descendants_of(worker.child.pid)
        assert network_of(child) == spaces[Replica("worker", 0)]
        assert _port(target, "worker", 0) in ports_of([worker.child.pid])
        await first_answer(target)
        work = await target.work()
        assert all(
            work[one].received_bytes > 20 for one in (Replica("front", 0), Replica("worker", 0))
        )
        # A respawned replica is in the same namespace, and the lists and probes agree again.
        await target.kill(Replica("worker", 1), TREE)
        assert (await target.respawn(Replica("worker", 1))).ok
        assert await target.wait_ready(30.0)
        again = target._replicas[Replica("worker", 1)].running
        assert again is not None
        assert network_of(again.child.pid) == spaces[Replica("worker", 1)]
        assert not await target.leaks()
        # The network of this machine stays as it was.
        assert Path("/proc/net/dev").read_text(encoding="ascii").count("\n") == before
    assert not left_of(os.getpid())


@in_loop
async def test_a_graph_fails_with_its_hub(tmp_path: Path) -> None:
    """If the process that holds the namespaces dies, the graph can't be used any more, and the error says so."""
    spec = toy_spec(tmp_path, network="namespaces")

    async def use() -> None:
        async with Supervisor.launch(spec, tmp_path / "run") as target:
            os.kill(hub_of(target), signal.SIGKILL)
            await asyncio.sleep(60)

    with pytest.raises(GraphError, match="toy: the network process has ended"):
        await use()
    assert not left_of(os.getpid())


HARNESS = """
import asyncio, sys
from pathlib import Path
from graphquake.harness.spec.graph import load_graph
from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.steps.actions import NetworkFault

async def main():
    async with Supervisor.launch(load_graph(sys.argv[1]), Path(sys.argv[2])) as target:
        one, other = Replica("worker", 0), Replica("front", 0)
        cut = NetworkFault("cut", 0.0, ((one, other), (other, one)))
        # The order returns when a packet meets the cut, at once or never. The harness stays until it is killed.
        cutting = asyncio.create_task(target.network.begin(0, cut, 60.0))
        await asyncio.sleep(0.1)
        print("up", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def networks(processes: list[int]) -> set[str]:
    """The network namespaces of some processes."""
    found = set()
    for pid in processes:
        with suppress(OSError):
            found.add(network_of(pid))
    return found


def test_a_killed_harness_leaves_no_namespace(tmp_path: Path) -> None:
    """If the harness is killed while a fault acts, or at the start, no process and no namespace is left after two seconds."""
    path = toy_spec(tmp_path, network="namespaces", worker="--children 1 --detach").path
    for number, at_s in enumerate((0.3, None, 0.6)):
        argv = [sys.executable, "-c", HARNESS, str(path), str(tmp_path / f"run{number}")]
        mine: set[str] = set()
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as harness:
            if at_s is None:
                assert harness.stdout is not None
                assert harness.stdout.readline() == "up\n"
                mine = networks(left_of(harness.pid)) - networks([os.getpid()])
                assert len(mine) == 4
            time.sleep(at_s or 0.2)
            harness.kill()
        killed_s = time.monotonic()
        while left := left_of(harness.pid) or mine & networks(pids()):
            assert time.monotonic() - killed_s < 2, left
            time.sleep(0.01)


def _port(target: Supervisor, role: str, index: int) -> int:
    return target._replicas[Replica(role, index)].ports["http"]


@pytest.mark.simulated
def test_a_machine_without_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine has no namespaces, the graph uses the machine's network. One line names the steps that are left out, and why."""
    monkeypatch.setattr(abilities, "network_lacks", lambda: "user namespaces are not allowed here")
    spec = on_this_machine(toy_spec(tmp_path, network="namespaces"))
    assert spec.network == "host"
    assert (
        left_out_text(spec)
        == "cut, reset, lose, slow, delay, partition: user namespaces are not allowed here"
    )
    with pytest.raises(InputError, match="not possible here: user namespaces are not allowed here"):
        check_plan(spec, Plan((parse_step("cut worker 0 from all for 1 s"),)), "plan")
    assert on_this_machine(toy_spec(tmp_path)).lacks == {}


@pytest.mark.simulated
def test_this_machine_has_namespaces() -> None:
    """The check whether a machine has namespaces finds nothing missing on one that has."""
    assert network_lacks() == ""


@pytest.mark.simulated
def test_addresses_differ() -> None:
    """Each of a thousand replicas has another address, and none has that of the hub."""
    assert len({HUB, *map(address_of, range(1000))}) == 1001


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('entry = "http://127.0.0.1:{port.http}"', "roles.front.entry"),
        ('ready = { get = "http://localhost:{port.http}/health" }', "roles.front.ready.get"),
    ],
)
def test_a_probe_of_loopback_is_an_error(tmp_path: Path, line: str, key: str) -> None:
    """With namespaces, a probe at a loopback address could never be answered. The error says what to write."""
    path = toy_file(tmp_path)
    name = line.split(" ", maxsplit=1)[0]
    lines = path.read_text().split("\n")
    place = next(number for number, one in enumerate(lines) if one.startswith(f"{name} = "))
    lines[place] = line
    path.write_text("\n".join(lines))
    load_graph(str(path))
    with pytest.raises(InputError, match=rf'{key}: has "(127|local).*", expected "{{host}}"'):
        load_graph(str(path), network="namespaces")


@pytest.mark.simulated
def test_the_command_line_decides_about_the_network(tmp_path: Path) -> None:
    """The option replaces the key of the file, also in the document that the folder of a run keeps."""
    path = str(toy_file(tmp_path))
    assert load_graph(path).network == "host"
    spec = load_graph(path, network="namespaces")
    assert spec.network == "namespaces"
    assert spec.document["network"] == "namespaces"

"""Squeezes of containers by the agent: in both versions of control groups they lower a limit, prove it, and give it back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.kubernetes.node import squeezes
from graphquake.harness.kubernetes.node.agents import Agents, Answer
from graphquake.harness.kubernetes.node.container_limits import MIB, Limits
from graphquake.harness.kubernetes.node.squeezes import PodSqueezes
from graphquake.harness.kubernetes.pods import read_pod
from graphquake.harness.processes.guard_client import Child
from graphquake.harness.processes.replicas import Incarnation
from graphquake.harness.run.open_target import on_this_machine
from graphquake.harness.spec.feasible import check_plan, drawn_at
from graphquake.harness.spec.plan import Plan, parse_step
from graphquake.harness.spec.replica import Replica

from support.cluster.web import GRAPH, web_spec

pytestmark = pytest.mark.simulated

ID = "ab12" * 16
ZERO = Replica("web", 0)
FIRST = {
    "cpu/kubepods/{id}/cpu.cfs_quota_us": "-1",
    "cpu/kubepods/{id}/cpu.cfs_period_us": "100000",
    "cpu/kubepods/{id}/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_time 7",
    "memory/kubepods/{id}/memory.limit_in_bytes": "9223372036854771712",
    "memory/kubepods/{id}/memory.usage_in_bytes": str(10 * MIB),
    "memory/kubepods/{id}/memory.failcnt": "3",
}
SECOND = {
    "kubepods.slice/cri-containerd-{id}.scope/cpu.max": "max 100000",
    "kubepods.slice/cri-containerd-{id}.scope/cpu.stat": "nr_periods 9\nnr_throttled 4",
    "kubepods.slice/cri-containerd-{id}.scope/memory.max": "max",
    "kubepods.slice/cri-containerd-{id}.scope/memory.current": str(10 * MIB),
    "kubepods.slice/cri-containerd-{id}.scope/memory.events": "low 0\nhigh 0\nmax 3\noom 0",
    # The process beside a container of CRI-O must not be hit in its place.
    "kubepods.slice/a-crio-conmon-{id}.scope/cpu.max": "max 100000",
}


def groups(place: Path, files: dict[str, str]) -> Limits:
    """Limits of control groups that are files in a folder."""
    for name, text in files.items():
        path = place / name.format(id=ID)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return Limits((place / "missing", place))


def about(what: str, amount: int = 0) -> dict[str, Any]:
    """An order about the container."""
    return {"container": ID, "what": what, "amount": amount}


@pytest.mark.parametrize(
    ("files", "what", "amount", "limit", "was"),
    [
        (FIRST, "cpu", 20, "cpu.cfs_quota_us is 20000", "-1"),
        (SECOND, "cpu", 20, "cpu.max is 20000 100000", "max 100000"),
        (FIRST, "memory", 64, f"memory.limit_in_bytes is {74 * MIB}", "9223372036854771712"),
        (SECOND, "memory", 64, f"memory.max is {74 * MIB}", "max"),
    ],
)
def test_a_limit_is_lowered_and_given_back(
    tmp_path: Path, files: dict[str, str], what: str, amount: int, limit: str, was: str
) -> None:
    """The proof has the limit as the kernel shows it, and the one before. A second squeeze does not land. The end brings it back."""
    limits = groups(tmp_path, files)
    ok, proof = limits.squeeze(about(what, amount))
    assert (ok, proof.split(": ")[1]) == (True, f"{limit}, {was} before")
    assert not limits.squeeze(about(what, amount))[0]
    assert limits.met(about(what)) == 0
    ok, proof = limits.release(about(what))
    assert (ok, proof) == (
        True,
        f"{limit.split(maxsplit=1)[0]} is {was} again; the limit was met 0 times",
    )
    beside = tmp_path / f"kubepods.slice/a-crio-conmon-{ID}.scope/cpu.max"
    assert files is FIRST or beside.read_text() == "max 100000\n"


def test_how_often_a_limit_was_met(tmp_path: Path) -> None:
    """What the kernel had counted before does not count."""
    limits = groups(tmp_path, SECOND)
    limits.squeeze(about("cpu", 5))
    next(tmp_path.glob("*/cri*/cpu.stat")).write_text("nr_periods 9\nnr_throttled 11")
    assert limits.met(about("cpu")) == 7


@pytest.mark.parametrize(
    ("changed", "what", "said"),
    [
        ({"cri-containerd-{id}.scope/cpu.max": "5000 100000"}, "cpu", "no more than 5% of a core anyway"),
        ({"cri-containerd-{id}.scope/memory.max": str(20 * MIB)}, "memory", "no more than 10 MiB more anyway"),
        ({}, "cpu", "no control group for cpu that the agent sees"),
    ],
)  # fmt: skip
def test_a_squeeze_without_an_effect_does_not_land(
    tmp_path: Path, changed: dict[str, str], what: str, said: str
) -> None:
    """A container whose own limit is lower is not squeezed, and keeps it. Nor is one without a control group."""
    files = {f"kubepods.slice/{name}": text for name, text in changed.items()}
    limits = groups(tmp_path, SECOND | files if changed else {})
    ok, proof = limits.squeeze(about(what, 20))
    assert not ok
    assert said in proof
    assert limits.release(about(what)) == (True, "nothing to give back")


def test_what_others_change_stays(tmp_path: Path) -> None:
    """A limit that somebody has changed meanwhile stays, and the end says so. The end of a container ends its squeeze."""
    limits = groups(tmp_path, SECOND)
    limits.squeeze(about("cpu", 20))
    limits.squeeze(about("memory", 20))
    next(tmp_path.glob("*/cri*/cpu.max")).write_text("70000 100000")
    assert limits.release(about("cpu")) == (False, "cpu.max was changed to 70000 100000 meanwhile, and stays so")  # fmt: skip
    next(tmp_path.glob("*/cri*/memory.max")).unlink()
    assert limits.release(about("memory")) == (True, "the container has ended")


def test_all_limits_are_given_back_when_the_agent_ends(tmp_path: Path) -> None:
    """The agent gives back every limit at once."""
    limits = groups(tmp_path, FIRST)
    limits.squeeze(about("cpu", 20))
    limits.squeeze(about("memory", 20))
    limits.undo()
    assert next(tmp_path.glob("cpu/*/*/cpu.cfs_quota_us")).read_text() == "-1"
    assert next(tmp_path.glob("memory/*/*/*limit*")).read_text() == "9223372036854771712"


@dataclass
class Told:
    """An agent that remembers its orders. `met` says how often the limit was met."""

    met: int = 1
    asked: list[str] = field(default_factory=list)

    async def at(self, node: str) -> Told:
        """The one agent."""
        assert node == "n"
        return self

    async def ask(self, do: str, **asked: Any) -> Answer:
        """Answer an order."""
        assert asked["container"] == ID
        self.asked.append(do)
        return Answer(ok=True, proof=do, result=self.met)


def squeezed(told: Told) -> tuple[PodSqueezes, Incarnation]:
    """The squeezes of one pod that runs."""
    states = [{"name": "c", "containerID": f"containerd://{ID}"}]
    pod = read_pod({
        "metadata": {"name": "web-0", "namespace": "lab", "uid": "u"},
        "spec": {"nodeName": "n", "containers": [{"name": "c"}]},
        "status": {"containerStatuses": states},
    })  # fmt: skip
    life = Incarnation(0, "web 0.0", Path("log"), Child(0, -1, 0.0))
    return PodSqueezes(cast("Agents", told), {ZERO: (pod, life)}.get), life


def test_a_replica_may_be_killed_by_a_squeeze_of_memory() -> None:
    """While its memory is squeezed, the end of a replica is caused by the step: the kernel kills it. Afterwards it is not."""

    async def body() -> None:
        told = Told()
        resources, life = squeezed(told)
        assert (await resources.squeeze(ZERO, "memory", 0, 1.0)).ok
        assert (life.aimed, life.partly) == (True, True)
        assert (await resources.squeeze(ZERO, "cpu", 5, 1.0)).ok
        assert (await resources.release(ZERO, "memory")).ok
        assert (life.aimed, life.partly) == (False, True)
        assert (await resources.release(ZERO, "cpu")).ok
        assert not life.partly
        assert told.asked == ["squeeze", "squeeze", "met", "release", "release"]

    asyncio.run(body())


def test_a_squeeze_of_cpu_lands_with_its_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that needs no more than its share is not squeezed: the limit is given back, and the step has not landed."""
    monkeypatch.setattr(squeezes, "EFFECT_WITHIN_S", 0.1)

    async def body() -> None:
        told = Told(met=0)
        resources, life = squeezed(told)
        landed = await resources.squeeze(ZERO, "cpu", 50, 1.0)
        assert (landed.ok, landed.proof) == (False, "web 0 needed no more than its share in 0.1 s")
        assert (told.asked[-1], life.partly) == ("release", False)
        assert not (await resources.squeeze(ZERO, "files", 0, 1.0)).ok

    asyncio.run(body())


def test_squeezes_need_an_agent(tmp_path: Path) -> None:
    """With an agent, the file may name squeezes of CPU and memory. Without one, a plan with a squeeze is an error."""
    text = f'faults = ["squeeze"]\n{GRAPH}'
    with_agent = web_spec(tmp_path, text.replace("ready_s", 'agent = "python"\nready_s'))
    assert {*drawn_at(with_agent, "web")} == {"squeeze cpu", "squeeze memory"}
    plan = Plan((parse_step("squeeze web 0 cpu to 20% for 2 s"),))
    check_plan(with_agent, plan, "plan")
    with pytest.raises(InputError, match=r"needs a process on the node: write agent"):
        check_plan(on_this_machine(web_spec(tmp_path, text)), plan, "plan")

"""Which pod is which replica, when things happened on the cluster's clock, and what a pod says about its processes."""

from __future__ import annotations

import asyncio
import random
import socket
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.clock import ClusterClock
from graphquake.harness.kubernetes.api.objects import Json
from graphquake.harness.kubernetes.doors import HOST, Door
from graphquake.harness.kubernetes.places import Happening, Places
from graphquake.harness.kubernetes.pods import Pod, read_pod

pytestmark = pytest.mark.simulated


def item(name: str, **container: Any) -> Json:
    """A pod with one container."""
    deleted = container.pop("deleted", False)
    ready = str(container.pop("ready", False))
    state = {"name": "main", **container}
    meta = {"name": name, "namespace": "n", "uid": f"uid-{name}", "creationTimestamp": f"t-{name}"}
    meta |= {"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}
    status |= {"containerStatuses": [state]}
    return {"metadata": meta, "spec": {"containers": [{"name": "main"}]}, "status": status}


def up(name: str, process: str = "c1", **more: Any) -> Pod:
    """A pod whose container runs."""
    running = {"running": {"startedAt": "2026-01-01T00:00:01Z"}}
    return read_pod(item(name, containerID=process, state=running, **more))


def ended(process: str, code: int) -> Json:
    """The end of a process."""
    return {"terminated": {"exitCode": code, "containerID": process, "finishedAt": "2026-01-01T00:00:02Z"}}  # fmt: skip


def told(happened: list[Happening]) -> list[str]:
    """Happenings as short texts."""
    return [
        f"{one.number} {one.what} {one.pod.name}{f' {one.end.status}' if one.end else ''}"
        for one in happened
    ]


def test_a_new_container_is_the_next_life() -> None:
    """A restart in the same pod ends one life and begins the next, with the exit code that the pod tells."""
    places = Places(1)
    assert told(places.update([up("a")])) == ["0 began a"]
    assert told(places.update([up("a", ready=True)])) == ["0 ready a"]
    again = up("a", "c2", lastState=ended("c1", 137), ready=True)
    assert told(places.update([again])) == ["0 ended a -9", "0 began a", "0 ready a"]


def test_a_replacement_waits_until_the_place_is_free() -> None:
    """While a deleted pod shuts down, its replacement is no replica yet, even if it is ready. Afterwards it is, at once."""
    places = Places(2)
    places.update([up("a", ready=True), up("b", ready=True)])
    both = [up("a", deleted=True, ready=True), up("b", ready=True), up("c", ready=True)]
    assert told(places.update(both)) == []
    assert [pod.name for pod in places.unplaced] == ["c"]
    assert told(places.update(both[1:])) == ["0 ended a", "0 began c", "0 ready c"]
    assert places.unplaced == []


def test_a_pod_that_fails_for_good_frees_its_place() -> None:
    """A pod that is over is replaced by the next one."""
    places = Places(1)
    places.update([up("a")])
    failed = item("a", containerID="c1", state=ended("c1", 3))
    failed["status"]["phase"] = "Failed"
    assert told(places.update([read_pod(failed), up("b")])) == ["0 ended a 3", "0 began b"]


def test_pods_take_places_in_the_order_of_their_creation() -> None:
    """The numbers of replicas do not depend on the order in which the API server lists pods. A pod that is deleted already gets none."""
    places = Places(2)
    pods = [up("c"), up("b"), up("a", deleted=True)]
    assert told(places.update(pods)) == ["0 began b", "1 began c"]


def note(running: dict[int, str], one: Happening) -> None:
    """Check one happening, and keep account of which pod runs where."""
    if one.what == "began":
        assert one.number not in running
        assert one.pod.uid not in running.values()
        running[one.number] = one.pod.uid
    elif one.what == "ready":
        assert running[one.number] == one.pod.uid
    else:
        assert running.pop(one.number) == one.pod.uid


@given(st.integers(0, 2**32), st.booleans())
def test_lives_alternate_whatever_was_missed(seed: int, skips: bool) -> None:  # noqa: FBT001
    """At each place, lives begin and end in turn, also if the watch has missed some states. No pod is in two places."""
    dice = random.Random(seed)
    pods: dict[str, tuple[int, bool]] = {}
    places = Places(2)
    running: dict[int, str] = {}
    for count in range(25):
        for name in [*pods]:
            if dice.random() < 0.2:
                pods[name] = (pods[name][0] + 1, False)
            elif dice.random() < 0.2:
                del pods[name]
        if len(pods) < 3 and dice.random() < 0.7:
            pods[f"p{count:02}"] = (1, False)
        if skips and dice.random() < 0.5:
            continue
        now = [up(name, f"c{number}", ready=dice.random() < 0.5) for name, (number, _) in pods.items()]  # fmt: skip
        for one in places.update(now):
            note(running, one)
        assert set(running.values()) <= {pod.uid for pod in now}
        assert len(running) == min(2, len(now))


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}, "CrashLoopBackOff: back-off 10s"),
        ({}, "Running"),
    ],
)  # fmt: skip
def test_why_no_process_runs(state: Json, said: str) -> None:
    """The reason is that of the container, or the phase of the pod."""
    assert read_pod(item("a", state=state)).waits_for == said


def test_a_pod_that_nothing_has_seen_yet() -> None:
    """A pod without a status is not ready and does not run."""
    pod = read_pod({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "x"}], "hostPID": True}})  # fmt: skip
    assert (pod.container, pod.runs, pod.ready, pod.container_id) == ("x", False, False, "")
    assert pod.shares_pids
    assert pod.waits_for == "not seen by a node yet"


@given(
    offset_s=st.floats(-1e6, 1e6),
    asked=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 0.5), st.floats(0, 1)), min_size=1),
    at_s=st.floats(0, 100),
)
def test_the_bounds_of_a_time_hold_it(
    offset_s: float, asked: list[tuple[float, float, float]], at_s: float
) -> None:
    """Whatever the offset and the delays are, the true time lies within the bounds."""
    clock = ClusterClock()
    for sent_s, took_s, when in asked:
        date_s = float((sent_s + took_s * when + offset_s) // 1)
        clock.note(date_s, sent_s, sent_s + took_s)
    early_s, late_s = clock.moment(float((at_s + offset_s) // 1))
    assert early_s - 1e-6 <= at_s <= late_s + 1e-6
    assert clock.uncertainty_s <= 0.75 + 1e-6


def test_many_answers_make_the_clock_narrow() -> None:
    """Answers at all parts of a second tell the offset to a few hundredths."""
    clock = ClusterClock()
    for count in range(40):
        sent_s = count * 1.618
        clock.note(float((sent_s + 0.005 + 7.3) // 1), sent_s, sent_s + 0.01)
    assert clock.uncertainty_s < 0.04
    assert clock.least_s <= 7.3 <= clock.most_s


def test_a_clock_that_was_set_is_believed_again() -> None:
    """An answer that contradicts all earlier ones begins anew."""
    clock = ClusterClock()
    clock.note(100, 0, 0.1)
    clock.note(500, 1, 1.1)
    assert clock.least_s <= 499.5 <= clock.most_s


@pytest.mark.parametrize("turns", range(4))
def test_a_door_that_is_cancelled_leaves_no_socket(turns: int) -> None:
    """A task may be cancelled while it opens a door. When the door is closed, its port is free again."""

    async def body() -> None:
        door = Door(cast("Client", None), "lab", 80)
        task = asyncio.create_task(door.open_to("web-1"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await door.close()
        with socket.create_server((HOST, door.port)):
            pass

    asyncio.run(body())

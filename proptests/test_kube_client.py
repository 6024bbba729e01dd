"""The client of the Kubernetes API: repeated requests and watches, against a server that gives prepared answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import MagicMock, Mock

import aiohttp
import pytest
from aiohttp import web

from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import PODS, Resource
from graphquake.harness.kubernetes.api.port_forward import PortForward
from graphquake.harness.kubernetes.api.pulse import SLOW_S, Pulse
from graphquake.harness.kubernetes.api.watch import Change, Watch
from graphquake.harness.targets.target import SLOW_WAY

from support.prepared import Answer, Prepared, cut, hang, says, served, watched

pytestmark = pytest.mark.roomy


def pod(name: str, version: int, uid: str = "u") -> dict[str, Any]:
    """A pod."""
    return {"metadata": {"name": name, "namespace": "n", "uid": uid, "resourceVersion": str(version)}}  # fmt: skip


def pods(version: int, *items: dict[str, Any]) -> dict[str, Any]:
    """A list of pods."""
    return {"metadata": {"resourceVersion": str(version)}, "items": list(items)}


# --------------------------------------------------------------------------------------------------------- requests


def test_a_busy_server_is_asked_again_after_the_time_that_it_names() -> None:
    """An answer 429 with Retry-After delays the next attempt. The request is then carried out once."""

    async def body() -> None:
        server = Prepared(says({}, 429, Retry_After="0.3"), says({"kind": "Pod"}))
        async with served(server) as client:
            begun_s = time.monotonic()
            assert await client.create(PODS, pod("a", 0)) == {"kind": "Pod"}
        assert time.monotonic() - begun_s >= 0.3
        assert len(server.asked) == 2

    asyncio.run(body())


def test_a_lost_answer_is_asked_for_again_unless_that_may_create_twice() -> None:
    """A get and a delete are sent again after a broken connection. A create is not: nobody knows whether it was carried out."""

    async def body() -> None:
        server = Prepared(cut, says({"kind": "Pod"}))
        async with served(server) as client:
            assert await client.get(PODS, "n", "a") == {"kind": "Pod"}
        server = Prepared(cut, says({}, 404))
        async with served(server) as client:
            assert await client.delete(PODS, pod("a", 1), grace_s=0) is False
        assert json.loads(server.bodies[1]) == {
            "preconditions": {"uid": "u"},
            "propagationPolicy": "Background",
            "gracePeriodSeconds": 0,
        }
        server = Prepared(cut, says({}))
        async with served(server) as client:
            with pytest.raises(ApiError, match="POST"):
                await client.create(PODS, pod("a", 0))
        assert len(server.asked) == 1

    asyncio.run(body())


def test_a_slow_api_server_is_noticed_while_its_answer_is_due() -> None:
    """Quick answers cause no doubt. A slow answer makes violations doubtful from its question on. The next run begins without doubt."""
    may_answer = asyncio.Event()

    async def late(request: web.Request) -> web.StreamResponse:
        await may_answer.wait()
        return await says({})(request)

    async def body() -> None:
        server = Prepared(says({}), says({}), late, says({}))
        async with served(server) as client, asyncio.TaskGroup() as tasks:
            pulse = Pulse(client)
            beats = tasks.create_task(pulse.beat())
            while len(server.asked) < 3:
                assert pulse.slow is None
                await asyncio.sleep(0.01)
            asked_s = time.monotonic()
            while pulse.slow is None:
                await asyncio.sleep(0.01)
            assert time.monotonic() - asked_s == pytest.approx(SLOW_S, abs=0.3)
            assert pulse.slow.since_s == pytest.approx(asked_s, abs=0.3)
            assert pulse.slow.cause.startswith(SLOW_WAY)
            may_answer.set()
            while len(server.asked) < 4:
                await asyncio.sleep(0.01)
            assert pulse.slow is not None
            pulse.begin_run()
            assert pulse.slow is None
            beats.cancel()

    asyncio.run(body())


def test_patience_ends() -> None:
    """A server that stays away is an error after the patience, and the error names the request."""

    async def body() -> None:
        server = Prepared(says({"message": "starting"}, 503))
        async with served(server, patience_s=0.3) as client:
            with pytest.raises(ApiError, match=r"GET http.*/pods/a: starting"):
                await client.get(PODS, "n", "a")

    asyncio.run(body())


def test_a_refusal_is_an_error_at_once() -> None:
    """A request that no role allows is not repeated. The error repeats the server's words, and says what is missing."""

    async def body() -> None:
        said = {"kind": "Status", "reason": "Forbidden", "message": "cannot delete pods"}
        server = Prepared(says(said, 403))
        async with served(server) as client:
            with pytest.raises(ApiError, match=r"cannot delete pods \(a role of the cluster"):
                await client.delete(PODS, pod("a", 1))
        assert len(server.asked) == 1

    asyncio.run(body())


def test_a_long_list_is_read_page_by_page() -> None:
    """The mark `continue` of one page is the beginning of the next."""

    async def body() -> None:
        first = {"metadata": {"continue": "more", "resourceVersion": "5"}, "items": [pod("a", 1)]}
        server = Prepared(says(first), says(pods(6, pod("b", 2))))
        async with served(server) as client:
            found = await client.list_all(PODS, "n", labels="app=x")
        assert [one["metadata"]["name"] for one in found.items] == ["a", "b"]
        assert server.asked[1].query["continue"] == "more"
        assert server.asked[1].query["labelSelector"] == "app=x"

    asyncio.run(body())


def test_a_dry_run_says_so() -> None:
    """A dry run of each change carries `dryRun=All`, and a real change does not."""

    async def body() -> None:
        server = Prepared(says({}))
        async with served(server) as client:
            for dry in (True, False):
                await client.apply(PODS, pod("a", 1), dry=dry)
                await client.patch(PODS, "n", "a", {}, dry=dry)
                await client.create(PODS, pod("a", 1), dry=dry)
                await client.delete(PODS, pod("a", 1), dry=dry)
        said = [one.query.get("dryRun") for one in server.asked]
        assert said == ["All", "All", "All", None, None, None, None, None]
        assert json.loads(server.bodies[3])["dryRun"] == ["All"]
        assert "dryRun" not in json.loads(server.bodies[7])

    asyncio.run(body())


@pytest.mark.simulated
def test_paths() -> None:
    """Paths of the core group, of other groups, and of objects without a namespace."""
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("n", "a", "exec") == "/api/v1/namespaces/n/pods/a/exec"
    role = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)  # fmt: skip
    assert role.path("n", "a") == "/apis/rbac.authorization.k8s.io/v1/clusterroles/a"


# ---------------------------------------------------------------------------------------------------------- watches


async def collect(watch: Watch, count: int) -> list[Change]:
    """The first changes of a watch."""
    found: list[Change] = []
    async with asyncio.timeout(30):
        async for change in (changes := watch.changes()):
            found.append(change)
            if len(found) == count:
                break
    await changes.aclose()  # type: ignore[attr-defined] # it is an async generator
    return found


def texts(found: list[Change]) -> list[str]:
    """Changes as short texts."""
    return [f"{one.kind} {one.item['metadata']['name']} {one.item['metadata']['resourceVersion']}" for one in found]  # fmt: skip


def test_a_watch_goes_on_from_its_last_bookmark() -> None:
    """Each new watch names the version of the last change or bookmark, so that nothing is told twice and nothing is lost."""

    async def body() -> None:
        server = Prepared(
            says(pods(10, pod("a", 3))),
            watched(("MODIFIED", pod("a", 11)), ("BOOKMARK", pod("", 19))),
            cut,
            watched(("DELETED", pod("a", 20)), ("ADDED", pod("b", 21, "v"))),
            hang,
        )
        async with served(server) as client:
            watch = Watch(client, PODS, "n", labels="app=x")
            found = await collect(watch, 4)
        assert texts(found) == ["ADDED a 3", "MODIFIED a 11", "DELETED a 20", "ADDED b 21"]
        versions = [one.query.get("resourceVersion") for one in server.asked[1:4]]
        assert versions == ["10", "19", "19"]
        assert server.asked[2].query["labelSelector"] == "app=x"
        assert list(watch.known) == [("n", "b")]
        assert watch.lists == 1

    asyncio.run(body())


@pytest.mark.parametrize(
    "gone",
    [
        says({"reason": "Expired", "code": 410}, 410),
        watched(("ERROR", {"code": 410, "reason": "Expired", "message": "too old"})),
    ],
    ids=["status", "event"],
)
def test_after_410_the_list_is_read_again_and_compared(gone: Answer) -> None:
    """A watch whose version is gone tells exactly the differences: also that an object has the same name and another uid."""

    async def body() -> None:
        server = Prepared(
            says(pods(10, pod("a", 1), pod("b", 2), pod("c", 3), pod("same", 4))),
            gone,
            says(pods(90, pod("a", 81), pod("c", 82, "new"), pod("d", 83), pod("same", 4))),
            hang,
        )
        async with served(server) as client:
            watch = Watch(client, PODS, "n")
            found = await collect(watch, 4 + 5)
        told = texts(found[4:])
        assert sorted(told) == [
            "ADDED c 82",
            "ADDED d 83",
            "DELETED b 2",
            "DELETED c 3",
            "MODIFIED a 81",
        ]
        assert told.index("DELETED c 3") < told.index("ADDED c 82")
        assert watch.lists == 2

    asyncio.run(body())


def test_a_watch_survives_an_api_server_that_is_away() -> None:
    """While the server refuses work, the watch asks again. `heard_s` tells since when it is deaf."""

    async def body() -> None:
        away = says({}, 503)
        server = Prepared(
            says(pods(10, pod("a", 3))), away, cut, away, watched(("MODIFIED", pod("a", 12))), hang
        )
        async with served(server) as client:
            watch = Watch(client, PODS, "n")
            begun_s = time.monotonic()
            found = await collect(watch, 2)
        assert texts(found) == ["ADDED a 3", "MODIFIED a 12"]
        assert watch.heard_s >= found[0].seen_s + 0.3
        assert found[1].seen_s >= begun_s + 0.3

    asyncio.run(body())


def test_a_silent_connection_is_given_up() -> None:
    """A watch whose connection has died without a word begins anew."""

    async def body() -> None:
        # The answer that counts may be late, too. Then it is asked for again.
        server = Prepared(says(pods(10)), hang, watched(("ADDED", pod("a", 12))))
        async with served(server) as client:
            found = await collect(Watch(client, PODS, "n", silence_s=0.2), 1)
        assert texts(found) == ["ADDED a 12"]

    asyncio.run(body())


def test_a_watch_that_no_role_allows_is_an_error() -> None:
    """A refusal does not pass by itself, so the watch ends."""

    async def body() -> None:
        server = Prepared(says(pods(10)), says({"message": "cannot watch pods"}, 403))
        async with served(server) as client:
            with pytest.raises(ApiError, match="cannot watch pods"):
                await collect(Watch(client, PODS, "n"), 1)

    asyncio.run(body())


# ------------------------------------------------------------------------------------------------------ port-forward


def test_a_connection_that_has_ended_takes_no_more_bytes() -> None:
    """A pod sends on, although the client has gone. Its bytes are dropped, and nothing is raised."""

    async def from_pod() -> AsyncIterator[aiohttp.WSMessage]:
        yield aiohttp.WSMessage(aiohttp.WSMsgType.BINARY, b"\x00\x50\x1fabc", None)

    socket = MagicMock()
    socket.__aiter__.side_effect = from_pod
    writer = Mock(is_closing=lambda: True, write=Mock(side_effect=RuntimeError("closed")))
    way = PortForward(Mock(), "n", "pod", 8000, 1)
    assert asyncio.run(way._from_pod(socket, writer)) is False
    writer.write.assert_not_called()

"""What a run does without the rights that only some of its parts need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

from graphquake.harness.errors import InputError
from graphquake.harness.kubernetes.api.client import Client
from graphquake.harness.kubernetes.api.errors import ApiError
from graphquake.harness.kubernetes.api.objects import Json
from graphquake.harness.kubernetes.api.watch import Change, Watch
from graphquake.harness.kubernetes.changes.records import sweep_records
from graphquake.harness.kubernetes.consent import check_namespace, check_rights
from graphquake.harness.kubernetes.endpoints import Endpoints
from graphquake.harness.kubernetes.notices import Notices
from graphquake.harness.kubernetes.pods import read_pod
from graphquake.harness.kubernetes.roster import Roster
from graphquake.harness.observation.http_probe import Prober
from graphquake.harness.processes.layout import Layout

from support.cluster.web import GRAPH, web_spec

pytestmark = pytest.mark.simulated
POD = {
    "metadata": {"name": "web-1", "namespace": "lab", "ownerReferences": [{"kind": "ReplicaSet", "name": "web", "controller": True}]},
    "spec": {"containers": [{"name": "main"}], "nodeName": "node-0"},
}  # fmt: skip


class Refusing:
    """A client of an API server that refuses everything but deletes of pods."""

    async def delete(self, *_: object, **__: object) -> bool:
        """Allowed."""
        return True

    async def get(self, *_: object, **__: object) -> Json:
        """Refused."""
        raise ApiError("GET: forbidden", 403)

    list_all = get


@pytest.mark.parametrize("status", [403, 500])
def test_events_and_slices_are_optional(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who may read neither events nor EndpointSlices gets runs without them. Another error is not hidden."""

    async def refused(_: Watch) -> AsyncIterator[Change]:
        raise ApiError("GET: no", status)
        yield

    monkeypatch.setattr(Watch, "changes", refused)
    roster, client = cast("Roster", None), cast("Client", None)
    layout = Layout(web_spec(tmp_path), tmp_path)
    for part in (
        Notices(client, "lab", roster),
        Endpoints(layout, client, roster, cast("Prober", None)),
    ):
        if status == 403:
            asyncio.run(part.follow())
            continue
        with pytest.raises(ApiError):
            asyncio.run(part.follow())


@pytest.mark.parametrize("known", ["v1", "v1beta1", ""])
def test_versions_of_endpoint_slices(
    known: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API server before 1.21 is asked for the older version. One that has neither gives no views of slices."""
    asked = []

    async def answered(self: Watch) -> AsyncIterator[Change]:
        asked.append(version := self._resource.version)
        if version != known:
            raise ApiError("GET: 404 page not found", 404)
        self.known["lab", "web-1"] = {
            "metadata": {"name": "web-1"},
            "endpoints": [{"targetRef": {"uid": "one"}, "conditions": {"ready": True}}],
        }
        raise asyncio.CancelledError
        yield

    monkeypatch.setattr(Watch, "changes", answered)
    layout = Layout(web_spec(tmp_path), tmp_path)
    part = Endpoints(layout, cast("Client", None), cast("Roster", None), cast("Prober", None))
    with suppress(asyncio.CancelledError):
        asyncio.run(part.follow())
    assert asked == (["v1"] if known == "v1" else ["v1", "v1beta1"])
    assert part._listed() == ({"one": True} if known else {})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", r"a dry run of a scale or a rollout \(or leave both out of faults at web\): GET: forbidden"),
        ('faults = ["delete"]', ""),
        ('faults = ["delete", "cordon"]', "a dry run of a cordon: GET: forbidden"),
    ],
)  # fmt: skip
def test_what_a_run_may_do_is_asked_first(line: str, said: str, tmp_path: Path) -> None:
    """Only what a search of the graph draws is asked for. The error says how to do without it."""
    text = GRAPH.replace("ready_s = 30", "cordon = true").replace("\n[kubernetes]", f"{line}\n[kubernetes]")  # fmt: skip
    asked = check_rights(
        web_spec(tmp_path, text), cast("Client", Refusing()), {"web": read_pod(POD)}
    )
    if not said:
        asyncio.run(asked)
        return
    with pytest.raises(InputError, match=said):
        asyncio.run(asked)


def test_a_namespace_that_may_not_be_read(tmp_path: Path) -> None:
    """An API server does not tell a user without rights whether a namespace exists. The error says both."""
    spec = web_spec(tmp_path)
    assert spec.cluster is not None
    said = (
        r'kubernetes.namespace: "lab" can\'t be read: it does not exist, or no role allows it: GET'
    )
    with pytest.raises(InputError, match=said):
        asyncio.run(check_namespace(spec, spec.cluster, cast("Client", Refusing())))


def test_a_sweep_without_the_right_to_list_deployments() -> None:
    """A user who may not list Deployments could not change any, so a sweep passes them over."""
    assert asyncio.run(sweep_records(cast("Client", Refusing()), "lab", nodes=True)) == []

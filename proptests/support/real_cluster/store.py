"""The objects of a real API server, behind the face of the test cluster's store.

Reads and writes are requests that block. A kubelet goes on while the API server is away: what it writes then is sent later, in this order.
The log of changes comes from watches.
"""

from __future__ import annotations

import asyncio
import copy
import http.client
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from graphquake.harness.kubernetes.api.client import MERGE, Client
from graphquake.harness.kubernetes.api.objects import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    NAMESPACES,
    NODES,
    PODS,
    Json,
    Resource,
    key_of,
    uid_of,
)
from graphquake.harness.kubernetes.api.watch import Watch

from support.cluster.kinds import WITH_STATUS
from support.cluster.store import Change, Refused, Store
from support.real_cluster.rest import Rest

FOLLOWED: Final = (PODS, NODES, DEPLOYMENTS)
SERVICE_ACCOUNTS: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount")
# A controller makes the service account of a new namespace, and before 1.24 its token, too.
ACCOUNT_WITHIN_S: Final = 20.0
TOKENS_UNTIL: Final = 24
NOT_FOUND: Final = 404
CONFLICT: Final = 409
ENDING: Final = "it is being terminated"
AWAY: Final = (OSError, http.client.HTTPException)


def difference(old: Any, new: Any) -> Any:
    """The merge patch that turns one part of an object into another."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    gone = {key: None for key in old if key not in new}
    return gone | {
        key: difference(old.get(key), value) for key, value in new.items() if old.get(key) != value
    }


class RemoteStore(Store):
    """The store of a real API server. Run `follow` in the background.

    Args:
        rest: requests to the API server.
        client: a client of it, for watches.
        node: the name of the node on which pods run.
    """

    def __init__(self, rest: Rest, client: Client, node: str) -> None:
        super().__init__()
        self._rest = rest
        self._node = node
        self._watches = {one: Watch(client, one) for one in FOLLOWED}
        self._late: list[Callable[[], object]] = []
        version = rest.ask("GET", "/version")
        self._minor = int("".join(filter(str.isdigit, version["minor"])))
        found = rest.ask("GET", "/apis")["groups"]
        slices = next(one for one in found if one["name"] == ENDPOINT_SLICES.group)
        self._slices = slices["preferredVersion"]["version"]

    async def follow(self) -> None:
        """Follow the API server, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for resource, watch in self._watches.items():
                tasks.create_task(self._follow(resource, watch))
            tasks.create_task(self._catch_up())

    async def _follow(self, resource: Resource, watch: Watch) -> None:
        async for change in watch.changes():
            self.version += 1
            self.log.append(Change(self.version, change.kind, resource, change.item))
            woke, self._woke = self._woke, asyncio.Event()
            woke.set()

    async def _catch_up(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            with suppress(*AWAY):
                while self._late:
                    with suppress(Refused):
                        self._late[0]()
                    self._late.pop(0)

    def _write(self, work: Callable[[], Json], item: Json) -> Json:
        """Change something now, or later if the API server is away."""
        if not self._late:
            with suppress(*AWAY):
                return work()
        self._late.append(work)
        return item

    def _path(self, resource: Resource, namespace: str = "", name: str = "", part: str = "") -> str:
        path = resource.path(namespace, name, part)
        return path.replace("/v1/", f"/{self._slices}/") if resource == ENDPOINT_SLICES else path

    # ---- reading

    def find(self, resource: Resource, namespace: str, name: str) -> Json | None:
        """See `Store.find`. While the API server is away, what was heard last."""
        try:
            return self._rest.ask("GET", self._path(resource, namespace, name))
        except Refused as error:
            if error.status != NOT_FOUND:
                raise
            return None
        except AWAY:
            return self._watches[resource].known.get((namespace, name))

    def all(self, resource: Resource, namespace: str = "") -> list[Json]:
        """See `Store.all`."""
        said = self._rest.ask("GET", self._path(resource, namespace))
        told = {"apiVersion": resource.api_version, "kind": resource.kind}
        return [told | one for one in said["items"]]

    # ---- changing

    def create(self, resource: Resource, item: Json, *, dry: bool = False) -> Json:
        """See `Store.create`. A namespace can hold pods then."""
        assert not dry
        told = (
            {"apiVersion": f"{resource.group}/{self._slices}"}
            if resource == ENDPOINT_SLICES
            else {}
        )
        body = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            **told,
            **copy.deepcopy(item),
        }
        path = self._path(resource, item["metadata"].get("namespace", ""))
        made = self._write(lambda: self._rest.ask("POST", path, body), body)
        if resource == NAMESPACES:
            self._await_account(made["metadata"]["name"])
        return made

    def _await_account(self, namespace: str) -> None:
        until_s = time.monotonic() + ACCOUNT_WITHIN_S
        while time.monotonic() < until_s:
            account = self.find(SERVICE_ACCOUNTS, namespace, "default")
            if account and (account.get("secrets") or self._minor >= TOKENS_UNTIL):
                return
            time.sleep(0.05)  # noqa: ASYNC251,RUF100 # no test goes on before
        raise AssertionError(f"no service account in {namespace} after {ACCOUNT_WITHIN_S:g} s")

    def update(self, resource: Resource, item: Json) -> Json:
        """See `Store.update`."""
        parts = {key: value for key, value in item.items() if key not in {"apiVersion", "kind"}}
        return self.change(resource, item, **parts)

    def change(self, resource: Resource, item: Json, **parts: Any) -> Json:
        """See `Store.change`."""

        def work() -> Json:
            try:
                return self._changed(resource, item, parts)
            except Refused as error:
                # It is gone, or another one, or its namespace ends.
                if error.status not in {NOT_FOUND, CONFLICT} and ENDING not in error.message:
                    raise
                return item

        return self._write(work, item)

    def _changed(self, resource: Resource, item: Json, parts: dict[str, Any]) -> Json:
        key = key_of(item)
        now = self._rest_find(resource, key)
        if now is None or uid_of(now) != uid_of(item):
            return item
        about = {"metadata": {"uid": uid_of(item)}}
        parts = dict(parts)
        if (
            resource == PODS
            and not now["spec"].get("nodeName")
            and parts.get("spec", {}).get("nodeName")
        ):
            target = {"kind": "Node", "name": self._node}
            binding = {"apiVersion": "v1", "kind": "Binding", "target": target}
            binding["metadata"] = {"name": key[1], **about["metadata"]}
            self._rest.ask("POST", self._path(resource, *key, "binding"), binding)
        if resource == PODS:
            parts.pop("spec", None)
        if resource in WITH_STATUS and "status" in parts:
            status = parts.pop("status")
            if status != now.get("status"):
                patch = {**about, "status": difference(now.get("status"), status)}
                now = self._rest.ask("PATCH", self._path(resource, *key, "status"), patch, MERGE)
        patch = difference({one: now.get(one) for one in parts}, parts)
        if not patch:
            return now
        patch["metadata"] = {**patch.get("metadata", {}), **about["metadata"]}
        for stamp in ("resourceVersion", "generation", "managedFields"):
            patch["metadata"].pop(stamp, None)
        return self._rest.ask("PATCH", self._path(resource, *key), patch, MERGE)

    def _rest_find(self, resource: Resource, key: tuple[str, str]) -> Json | None:
        with suppress(Refused):
            return self._rest.ask("GET", self._path(resource, *key))
        return None

    def delete(self, resource: Resource, item: Json, grace_s: int | None = None) -> Json:
        """See `Store.delete`."""
        options: Json = {"preconditions": {"uid": uid_of(item)}, "propagationPolicy": "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s

        def work() -> Json:
            try:
                self._rest.ask("DELETE", self._path(resource, *key_of(item)), options)
            except Refused as error:
                if error.status not in {NOT_FOUND, CONFLICT}:
                    raise
            return item

        return self._write(work, item)

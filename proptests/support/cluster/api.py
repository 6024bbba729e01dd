"""The API server of the test cluster: it speaks the protocol of a real one over HTTP, for `kubectl` and for our own client.

Tests can take it away for a while (`is_away`), let it refuse requests (`throttle`), and forget old versions (`Store.compact`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from graphquake.harness.kubernetes.api.objects import (
    DEPLOYMENTS,
    PODS,
    REPLICA_SETS,
    Json,
    Resource,
    key_of,
    labels_of,
    uid_of,
)

from support.cluster.kinds import (
    WITH_STATUS,
    group_list,
    kind_at,
    resource_list,
    schema,
    schema_list,
)
from support.cluster.patches import Appliers, merged, strategic
from support.cluster.selectors import has_fields, has_labels
from support.cluster.store import Refused, Store, grace_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
VERSION = {"major": "1", "minor": "33", "gitVersion": "v1.33.0-test"}


def failure(status: int, reason: str, message: str) -> web.Response:
    """The answer to a request that is refused."""
    said = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    said |= {"reason": reason, "message": message, "code": str(status)}
    return web.json_response({**said, "code": status}, status=status)


def too_old() -> web.Response:
    """The answer to a watch whose version is forgotten."""
    return failure(410, "Expired", "too old resource version")


class WatchStream:
    """One watch: it writes changes, one JSON document a line.

    Args:
        store: the objects.
        resource: the kind of object.
        wants: true for the objects that the watch is about.
        response: where the changes are written.
        bookmark_s: the time without a change after which a bookmark is written, in seconds. None for no bookmarks.
    """

    def __init__(
        self,
        store: Store,
        resource: Resource,
        wants: Callable[[Json], bool],
        response: web.StreamResponse,
        bookmark_s: float | None,
    ) -> None:
        self._store, self._resource, self._wants = store, resource, wants
        self._response, self._bookmark_s = response, bookmark_s

    async def tell_all(self, since: int) -> None:
        """Write the changes after a version, until the version is forgotten. 0 stands for all objects, and then their changes."""
        store = self._store
        if not since:
            for item in filter(self._wants, store.all(self._resource)):
                await self._tell("ADDED", item)
            since = store.version
        while since >= store.compacted or store.version == since:
            for change in store.since(since):
                since = change.version
                if change.resource == self._resource and self._wants(change.item):
                    await self._tell(change.kind, change.item)
            await self._next(since)
        await self._tell("ERROR", json.loads(too_old().text or ""))

    async def _next(self, since: int) -> None:
        """Wait for the next change. While none comes, write bookmarks."""
        while True:
            try:
                async with asyncio.timeout(self._bookmark_s):
                    return await self._store.changed(since)
            except TimeoutError:
                meta = {"resourceVersion": str(since)}
                kind = {"apiVersion": self._resource.api_version, "kind": self._resource.kind}
                await self._tell("BOOKMARK", {**kind, "metadata": meta})

    async def _tell(self, kind: str, item: Json) -> None:
        await self._response.write(json.dumps({"type": kind, "object": item}).encode() + b"\n")


class ApiServer:
    """The API server.

    Attributes:
        is_away: true while each connection is cut.
        throttle: the number of requests that are still to be refused with 429.
        requests: the requests so far, as `METHOD path?query`.
        pod_parts: the handlers of the subresources of a pod that are streams: `exec`, `portforward`, `log`.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.is_away = False
        self.throttle = 0
        self.bookmark_s = 1.0
        self.requests: list[str] = []
        self.pod_parts: dict[str, Callable[[web.Request, Json], Awaitable[web.StreamResponse]]] = {}
        self._appliers = Appliers()
        self._watches: list[web.Request] = []
        self._streams: list[web.Request] = []

    def app(self) -> web.Application:
        """The web application."""
        app = web.Application(client_max_size=16 << 20, middlewares=[self._gate])
        routes: list[tuple[str, Handler]] = [
            ("/version", _says(VERSION)),
            ("/api", _says({"kind": "APIVersions", "versions": ["v1"]})),
            ("/apis", _says(group_list())),
            ("/api/{version}", self._kinds),
            ("/apis/{group}/{version}", self._kinds),
            ("/openapi/v3", _says(schema_list())),
            ("/openapi/v3/api/{version}", self._schema),
            ("/openapi/v3/apis/{group}/{version}", self._schema),
        ]
        for path, handler in routes:
            app.router.add_get(path, handler)
        for base in ("/api/{version}", "/apis/{group}/{version}"):
            # A namespace is also an object of its own, so that the longer paths come first.
            for inside in ("/namespaces/{namespace}", ""):
                app.router.add_route("*", base + inside + "/{plural}", self._collection)
                app.router.add_route("*", base + inside + "/{plural}/{name}", self._object)
                app.router.add_route("*", base + inside + "/{plural}/{name}/{part}", self._part)
        return app

    def go_away(self) -> None:
        """Cut every watch, and each new connection, until `is_away` is false again."""
        self.is_away = True
        _abort(self._watches)

    def cut(self) -> None:
        """As `go_away`, and cut the streams to pods as well."""
        self.go_away()
        _abort(self._streams)

    @web.middleware
    async def _gate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self.is_away:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        self.requests.append(f"{request.method} {request.path_qs}")
        if self.throttle > 0:
            self.throttle -= 1
            refused = failure(429, "TooManyRequests", "too many requests")
            refused.headers["Retry-After"] = "1"
            return refused
        try:
            return await handler(request)
        except Refused as error:
            return failure(error.status, error.reason, error.message)
        except ValueError as error:
            return failure(400, "BadRequest", str(error))

    async def _kinds(self, request: web.Request) -> web.Response:
        info = request.match_info
        return web.json_response(resource_list(info.get("group", ""), info["version"]))

    async def _schema(self, request: web.Request) -> web.Response:
        info = request.match_info
        return web.json_response(schema(info.get("group", ""), info["version"]))

    def _resource(self, request: web.Request) -> Resource:
        info = request.match_info
        found = kind_at(info.get("group", ""), info["version"], info["plural"])
        if found is None:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        return found

    # ---- collections

    async def _collection(self, request: web.Request) -> web.StreamResponse:
        resource = self._resource(request)
        namespace = request.match_info.get("namespace", "")
        wants = _wanted(request, namespace)
        if request.method == "POST":
            body = await _body(request)
            if resource.namespaced:
                body.setdefault("metadata", {}).setdefault("namespace", namespace)
            made = self.store.create(resource, body, dry=_is_dry(request))
            return web.json_response(made, status=201)
        if request.method == "DELETE":
            found = [one for one in self.store.all(resource, namespace) if wants(one)]
            for item in found:
                await self._deleted(request, resource, item)
            return web.json_response({"kind": "Status", "status": "Success"})
        if request.query.get("watch") in {"true", "1"}:
            return await self._watch(request, resource, wants)
        return web.json_response(self._page(request, resource, namespace, wants))

    def _page(
        self,
        request: web.Request,
        resource: Resource,
        namespace: str,
        wants: Callable[[Json], bool],
    ) -> Json:
        """A list, or one page of it. A page goes on after the last name of the page before."""
        found = [one for one in self.store.all(resource, namespace) if wants(one)]
        after = tuple(json.loads(request.query.get("continue") or "[]"))
        found = [one for one in found if key_of(one) > after]
        limit = int(request.query.get("limit") or 0) or len(found)
        page = found[:limit]
        meta: Json = {"resourceVersion": str(self.store.version)}
        if len(found) > limit:
            meta["continue"] = json.dumps(key_of(page[-1]))
        kind = f"{resource.kind}List"
        return {"kind": kind, "apiVersion": resource.api_version, "metadata": meta, "items": page}

    async def _watch(
        self, request: web.Request, resource: Resource, wants: Callable[[Json], bool]
    ) -> web.StreamResponse:
        since = int(request.query.get("resourceVersion") or 0)
        if since and since < self.store.compacted:
            return too_old()
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._watches.append(request)
        marks = request.query.get("allowWatchBookmarks") == "true"
        watch = WatchStream(
            self.store, resource, wants, response, self.bookmark_s if marks else None
        )
        try:
            async with asyncio.timeout(float(request.query.get("timeoutSeconds") or 300)):
                await watch.tell_all(since)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            self._watches.remove(request)
        return response

    # ---- single objects

    async def _object(self, request: web.Request) -> web.StreamResponse:
        resource, info = self._resource(request), request.match_info
        namespace, name = info.get("namespace", ""), info["name"]
        if request.method == "PATCH":
            return await self._patch(request, resource)
        item = self.store.get(resource, namespace, name)
        if request.method == "DELETE":
            return web.json_response(await self._deleted(request, resource, item))
        if request.method == "PUT":
            return web.json_response(self._put(request, resource, item, await _body(request)))
        return web.json_response(item)

    def _put(self, request: web.Request, resource: Resource, old: Json, new: Json, part: str = "") -> Json:  # fmt: skip
        """Store a new form of an object. Only the status, or everything but the status, is taken from it."""
        version = new["metadata"].get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            message = "the object has been modified; please apply your changes to the latest version and try again"  # fmt: skip
            raise Refused(409, "Conflict", message)
        kept = ("uid", "creationTimestamp", "generation", "resourceVersion", "name", "namespace")
        meta = {**new["metadata"], **{k: v for k, v in old["metadata"].items() if k in kept}}
        new = {**new, "apiVersion": old["apiVersion"], "kind": old["kind"], "metadata": meta}
        if part == "status":
            new = {**old, "status": new.get("status", {})}
        elif resource in WITH_STATUS:
            new.pop("status", None)
            new |= {"status": old["status"]} if "status" in old else {}
        return new if _is_dry(request) else self.store.update(resource, new)

    async def _patch(self, request: web.Request, resource: Resource, part: str = "") -> web.Response:  # fmt: skip
        info, form = request.match_info, request.content_type
        namespace, name = info.get("namespace", ""), info["name"]
        body = await _body(request)
        old = self.store.find(resource, namespace, name)
        is_apply = form == "application/apply-patch+yaml"
        manager, force = request.query.get("fieldManager", ""), request.query.get("force") == "true"
        status = 200
        if is_apply and not manager:
            raise Refused(400, "BadRequest", "fieldManager is required for apply patch")
        if old is None:
            if not is_apply:
                self.store.get(resource, namespace, name)
            seed: Json = {"metadata": {"name": name}}
            if resource.namespaced:
                seed["metadata"]["namespace"] = namespace
            old, status = self.store.create(resource, strategic(seed, body), dry=_is_dry(request)), 201  # fmt: skip
            if _is_dry(request):
                return web.json_response(old, status=status)
        if is_apply:
            new = self._appliers.applied(old, body, manager, force=force)
        elif form == "application/merge-patch+json":
            new = merged(old, body)
        elif form == "application/strategic-merge-patch+json":
            new = strategic(old, body)
        else:
            raise Refused(415, "UnsupportedMediaType", f"the patch form {form} is not supported")
        return web.json_response(self._put(request, resource, old, new, part), status=status)

    async def _deleted(self, request: web.Request, resource: Resource, item: Json) -> Json:
        options = await _body(request) if request.can_read_body else {}
        wanted = options.get("preconditions", {}).get("uid")
        if wanted and wanted != uid_of(item):
            raise Refused(409, "Conflict", f"the UID in the precondition ({wanted}) does not match")
        asked = options.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
        grace_s = grace_of(resource, item) if asked is None else int(asked)
        if _is_dry(request) or options.get("dryRun"):
            return item
        return self.store.delete(resource, item, grace_s if resource == PODS else None)

    async def _part(self, request: web.Request) -> web.StreamResponse:
        resource, info = self._resource(request), request.match_info
        part, namespace, name = info["part"], info.get("namespace", ""), info["name"]
        item = self.store.get(resource, namespace, name)
        if resource == PODS and part in self.pod_parts:
            self._streams.append(request)
            try:
                return await self.pod_parts[part](request, item)
            finally:
                self._streams.remove(request)
        if part == "status" and request.method == "PATCH":
            return await self._patch(request, resource, "status")
        if part == "status" and request.method == "PUT":
            return web.json_response(self._put(request, resource, item, await _body(request), part))
        if part == "status":
            return web.json_response(item)
        if part == "scale" and resource in {DEPLOYMENTS, REPLICA_SETS}:
            return await self._scale(request, resource, item)
        raise Refused(404, "NotFound", f"the server could not find {part}")

    async def _scale(self, request: web.Request, resource: Resource, item: Json) -> web.Response:
        if request.method in {"PATCH", "PUT"}:
            replicas = int((await _body(request))["spec"]["replicas"])
            new = {**item, "spec": {**item["spec"], "replicas": replicas}}
            item = self._put(request, resource, item, new)
        keys = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        said = {"kind": "Scale", "apiVersion": "autoscaling/v1"}
        meta = {key: item["metadata"][key] for key in keys}
        now = item.get("status", {}).get("replicas", 0)
        spec, status = {"replicas": item["spec"]["replicas"]}, {"replicas": now}
        return web.json_response({**said, "metadata": meta, "spec": spec, "status": status})


def _abort(requests: list[web.Request]) -> None:
    for request in list(requests):
        if request.transport is not None:
            request.transport.abort()


def _says(said: dict[str, Any]) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response(said)

    return handler


def _is_dry(request: web.Request) -> bool:
    return "All" in request.query.getall("dryRun", [])


def _wanted(request: web.Request, namespace: str) -> Callable[[Json], bool]:
    labels, fields = request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")

    def wants(item: Json) -> bool:
        inside = not namespace or key_of(item)[0] == namespace
        return inside and has_labels(labels, dict(labels_of(item))) and has_fields(fields, item)

    return wants


async def _body(request: web.Request) -> Json:
    """The body of a request: JSON, or YAML if a reader of YAML is installed."""
    text = await request.text()
    try:
        found = json.loads(text)
    except ValueError:
        import yaml  # type: ignore[import-untyped] # noqa: PLC0415 # only some clients send YAML

        found = yaml.safe_load(text)
    if not isinstance(found, dict):
        raise Refused(400, "BadRequest", "the body is not an object")
    return found

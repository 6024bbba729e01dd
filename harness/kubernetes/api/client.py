"""Send requests to an API server: read, list, apply, patch and delete objects.

A request survives an API server that is away or too busy for up to `PATIENCE_S` seconds. It is sent again only if that can't do a thing
twice: a create is sent again only if the first one was certainly not carried out. An answer 429 says how long to wait, and that is obeyed.

Everything that this client changes, it changes under the name `graphquake`. A dry run asks the API server for the same checks, and changes
nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import aiohttp

from graphquake.harness.kubernetes.api.clock import ClusterClock
from graphquake.harness.kubernetes.api.errors import ApiError, error_of
from graphquake.harness.kubernetes.api.kubeconfig import Access
from graphquake.harness.kubernetes.api.objects import Json, Resource, uid_of, version_of

# The time for which a request is repeated while the API server is away or refuses work. An upgrade of a control plane takes longer than
# a restart, and a run that waits longer than this is invalid anyway.
PATIENCE_S: Final = 45.0
# The pauses between two attempts, unless the answer names one.
PAUSE_FIRST_S: Final = 0.1
PAUSE_MAX_S: Final = 2.0
RETRY_AFTER_MAX_S: Final = 30.0
# The time limit for one answer.
ANSWER_WITHIN_S: Final = 15.0
# The largest number of objects in one answer to a list.
PAGE_ITEMS: Final = 500
MANAGER: Final = "graphquake"

MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
# The API server was too busy, or not there, behind a proxy that was.
BUSY: Final = frozenset({429, 502, 503, 504})


class Listing(NamedTuple):
    """The objects of a collection, and the version of the collection that a watch goes on from."""

    items: list[Json]
    version: str


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    said: Json | str
    retry_after_s: float | None


class Client:
    """A client of one API server. Use it as an async context manager.

    Args:
        access: the API server, and the credentials.
        patience_s: the time for which a request is repeated, in seconds.

    Attributes:
        clock: the clock of the API server, as its answers tell it.
    """

    def __init__(self, access: Access, *, patience_s: float = PATIENCE_S) -> None:
        self.access = access
        self.patience_s = patience_s
        self.clock = ClusterClock()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=0, ssl=self.access.tls if self.access.tls is not None else True
        )
        self._http = aiohttp.ClientSession(
            connector=connector, headers={"User-Agent": MANAGER, "Accept": "application/json"}
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.close()

    # ------------------------------------------------------------------------------------------------------ objects

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """Return one object.

        Raises:
            ApiError: if it does not exist (see `ApiError.is_missing`), or can't be read.
        """
        return await self.request("GET", resource.path(namespace, name))

    async def list_all(
        self, resource: Resource, namespace: str = "", labels: str = "", fields: str = ""
    ) -> Listing:
        """Return all objects of a collection. A large collection is read page by page.

        Args:
            resource: the kind of object.
            namespace: the namespace, or empty for all.
            labels: a label selector, e.g. `app=frontend`.
            fields: a field selector, e.g. `metadata.name=one`.
        """
        items: list[Json] = []
        query = {"limit": str(PAGE_ITEMS), "labelSelector": labels, "fieldSelector": fields}
        while True:
            page = await self.request("GET", resource.path(namespace), query)
            items += page.get("items") or []
            if not (go_on := page["metadata"].get("continue")):
                return Listing(items, version_of(page))
            query["continue"] = go_on

    async def create(self, resource: Resource, item: Mapping[str, Any], *, dry: bool = False) -> Json:  # fmt: skip
        """Create an object. An object of that name must not exist."""
        path = resource.path(item["metadata"].get("namespace", ""))
        return await self.request("POST", path, _query(dry=dry), item)

    async def apply(
        self, resource: Resource, item: Mapping[str, Any], *, dry: bool = False, force: bool = False
    ) -> Json:
        """Create or change an object by server-side apply. Fields that are not in `item` keep their values.

        Args:
            resource: the kind of object.
            item: the object with the fields that are to have these values.
            dry: true if nothing is to be changed.
            force: true if fields that another manager has set are to be taken over. Otherwise such a field is a conflict.
        """
        path = resource.path(item["metadata"].get("namespace", ""), item["metadata"]["name"])
        query = {**_query(dry=dry), "force": "true" if force else "false"}
        return await self.request("PATCH", path, query, item, APPLY)

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Mapping[str, Any],
        *,
        part: str = "",
        dry: bool = False,
    ) -> Json:
        """Change an object by a merge patch, and return it.

        Args:
            resource: the kind of object.
            namespace: the namespace of the object.
            name: the name of the object.
            change: the fields to change. The value None removes a field. A list replaces the whole list.
            part: a subresource such as `scale`, or empty for the object itself.
            dry: true if nothing is to be changed.
        """
        path = resource.path(namespace, name, part)
        return await self.request("PATCH", path, _query(dry=dry), change, MERGE)

    async def delete(
        self, resource: Resource, item: Mapping[str, Any], *, grace_s: int | None = None, dry: bool = False
    ) -> bool:  # fmt: skip
        """Delete exactly this object, not one that was created later under its name.

        Args:
            resource: the kind of object.
            item: the object, with its uid.
            grace_s: the time that a pod gets to end by itself, in whole seconds. None for the time in its own spec.
            dry: true if nothing is to be changed.

        Returns:
            False if the object is gone already.
        """
        meta = item["metadata"]
        options: Json = {"preconditions": {"uid": uid_of(item)}, "propagationPolicy": "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        if dry:
            options["dryRun"] = ["All"]
        path = resource.path(meta.get("namespace", ""), meta["name"])
        try:
            await self.request("DELETE", path, None, options)
        except ApiError as error:
            if error.is_missing or error.is_conflict:
                return False
            raise
        return True

    # ----------------------------------------------------------------------------------------------------- requests

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        form: str = "application/json",
    ) -> Json:
        """Send a request until it is answered, and return the answer.

        Args:
            method: the HTTP method.
            path: the path of the object or the collection.
            query: the parameters. Those without a value are left out.
            body: the body, or None if there is none.
            form: the content type of the body.

        Raises:
            ApiError: if the API server refuses the request, or gives no answer for `patience_s` seconds.
        """
        until_s = time.monotonic() + self.patience_s
        pause_s, renewed = PAUSE_FIRST_S, False
        while True:
            error, wait_s, again = await self._attempt(method, path, query, body, form)
            if isinstance(error, dict):
                return error
            if error.status == HTTPStatus.UNAUTHORIZED and not renewed:
                # A token may have ended. New credentials are tried once.
                self.access.credentials.forget()
                renewed = True
                continue
            wait_s = pause_s if wait_s is None else min(wait_s, RETRY_AFTER_MAX_S)
            if not again or time.monotonic() + wait_s > until_s:
                raise error
            await asyncio.sleep(wait_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def _attempt(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None, form: str
    ) -> tuple[Json | ApiError, float | None, bool]:  # fmt: skip
        """Send a request once. Return the answer or the error, the pause that the answer asks for, and whether to try again."""
        what = f"{method} {self.access.server}{path}"
        is_create = method == "POST"
        try:
            answer = await self._once(method, path, query, body, form)
        except aiohttp.ClientConnectorError as error:
            # The request was never sent. A certificate that is not valid stays so.
            is_hopeless = isinstance(error, aiohttp.ClientSSLError)
            return ApiError(f"{what}: no connection: {error}"), None, not is_hopeless
        except TimeoutError:
            text = f"{what}: no answer within {ANSWER_WITHIN_S:g} s"
            return ApiError(text), None, not is_create
        except (aiohttp.ClientError, OSError) as error:
            text = f"{what}: {error or type(error).__name__}"
            return ApiError(text), None, not is_create
        if answer.status < HTTPStatus.BAD_REQUEST and isinstance(answer.said, dict):
            return answer.said, None, False
        refused = answer.status == HTTPStatus.TOO_MANY_REQUESTS
        again = refused or (answer.status in BUSY and not is_create)
        return error_of(what, answer.status, answer.said), answer.retry_after_s, again

    async def _once(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None, form: str
    ) -> _Answer:  # fmt: skip
        credentials = await self.access.credentials.headers()
        sent_s = time.monotonic()
        async with self._http.request(
            method,
            self.access.server + path,
            params={key: value for key, value in (query or {}).items() if value},
            data=None if body is None else json.dumps(body).encode(),
            headers={**credentials, "Content-Type": form},
            timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S),
        ) as answer:
            with suppress(ValueError, KeyError):
                date = parsedate_to_datetime(answer.headers["Date"])
                self.clock.note(date.timestamp(), sent_s, time.monotonic())
            text = await answer.text()
            said: Json | str = text
            with suppress(ValueError):
                parsed = json.loads(text)
                said = parsed if isinstance(parsed, dict) else text
            after_s = None
            with suppress(ValueError, TypeError):
                after_s = max(0.0, float(answer.headers.get("Retry-After", "")))
            return _Answer(answer.status, said, after_s)

    # ------------------------------------------------------------------------------------------------------ streams

    async def stream(self, path: str, query: Mapping[str, str], silence_s: float) -> aiohttp.ClientResponse:  # fmt: skip
        """Begin a request whose answer goes on, e.g. a watch or a log. The caller closes it.

        Args:
            path: the path.
            query: the parameters.
            silence_s: the longest time between two parts of the answer, in seconds.

        Raises:
            ApiError: if the API server refuses the request.
            aiohttp.ClientError, TimeoutError: if the connection fails. The caller may try again.
        """
        answer = await self._http.get(
            self.access.server + path,
            params={key: value for key, value in query.items() if value},
            headers=await self.access.credentials.headers(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=silence_s, sock_read=silence_s),
        )
        if answer.status >= HTTPStatus.BAD_REQUEST:
            text = await answer.text()
            said: Json | str = text
            with suppress(ValueError):
                said = json.loads(text)
            raise error_of(f"GET {self.access.server}{path}", answer.status, said)
        return answer

    async def websocket(
        self, path: str, query: list[tuple[str, str]], protocols: tuple[str, ...]
    ) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket to a pod.

        Raises:
            ApiError: if it can't be opened.
        """
        what = f"WebSocket {self.access.server}{path}"
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await self._http.ws_connect(
                    self.access.server + path,
                    params=query,
                    protocols=protocols,
                    headers=await self.access.credentials.headers(),
                    max_msg_size=0,
                )
        except aiohttp.WSServerHandshakeError as error:
            raise ApiError(f"{what}: status {error.status}", error.status) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(f"{what}: {error or type(error).__name__}") from None


def _query(*, dry: bool) -> dict[str, str]:
    return {"fieldManager": MANAGER, "dryRun": "All" if dry else ""}

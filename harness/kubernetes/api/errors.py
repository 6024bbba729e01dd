"""The errors of the API client."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from graphquake.harness.errors import GraphError

SAID_MAX: Final = 300


class ApiError(GraphError):
    """The API server refused a request, or gave no answer in time.

    Attributes:
        status: the HTTP status, or 0 if no answer came.
        reason: the reason in one word, as the API server gives it, e.g. `NotFound` or `Expired`. Empty if there is none.
    """

    def __init__(self, text: str, status: int = 0, reason: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason

    @property
    def is_missing(self) -> bool:
        """True if the object does not exist."""
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def is_forbidden(self) -> bool:
        """True if no role of the cluster allows the request."""
        return self.status == HTTPStatus.FORBIDDEN

    @property
    def is_expired(self) -> bool:
        """True if the API server no longer has the version that a watch or a list asked for."""
        return self.status == HTTPStatus.GONE or self.reason in {"Expired", "Gone"}

    @property
    def is_conflict(self) -> bool:
        """True if the object is another one than the caller knows, or exists already."""
        return self.status == HTTPStatus.CONFLICT


def error_of(what: str, status: int, said: Mapping[str, Any] | str) -> ApiError:
    """Return the error that an answer of the API server stands for.

    Args:
        what: the request in words, e.g. `DELETE /api/v1/…`.
        status: the HTTP status of the answer.
        said: the answer: a `Status` object, or any text.
    """
    if isinstance(said, str):
        return ApiError(f"{what}: status {status}: {said[:SAID_MAX]}", status)
    reason = str(said.get("reason", ""))
    text = str(said.get("message") or reason or said)[:SAID_MAX]
    hint = ""
    if status == HTTPStatus.UNAUTHORIZED:
        hint = " (the API server does not accept these credentials)"
    elif status == HTTPStatus.FORBIDDEN:
        hint = " (a role of the cluster must allow this request)"
    return ApiError(f"{what}: {text}{hint}", status, reason)

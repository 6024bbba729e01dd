"""Ask a live graph which models it serves, to notice a wrong model name. A server that ignores the name gives right answers to any name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp

from graphquake.harness.clients.answers import body_of
from graphquake.harness.clients.load import PATHS
from graphquake.harness.run.open_target import open_target
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.targets.target import Target

# The time limit for both questions together, in seconds.
WITHIN_S: Final = 5.0


@dataclass(slots=True)
class ModelNames:
    """The names of models that a graph tells.

    Attributes:
        listed: the ids at `/v1/models`. Empty if the entry gives no such list.
        answered: the field `model` of an answer. Empty if the answer has no such field.
    """

    listed: tuple[str, ...] = ()
    answered: str = ""

    def warnings(self, spec: GraphSpec) -> Iterator[str]:
        """Yield a warning for each name that is not the one in the graph file."""
        where = f"{spec.path.name}: load.model"
        asked = spec.load.model
        if self.listed and asked not in self.listed:
            names = ", ".join(self.listed)
            yield f'{where}: found "{asked}", but /v1/models lists {names}; use that, unless the server ignores the name'
        if self.answered not in ("", asked):
            yield f'{where}: found "{asked}", but an answer names the model "{self.answered}"'

    @asynccontextmanager
    async def opened(self, spec: GraphSpec, folder: Path) -> AsyncIterator[Target]:
        """Open a graph as `open_target` does, and ask for the names before it ends."""
        async with open_target(spec, folder) as target:
            yield target
            with suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError, TypeError):
                async with asyncio.timeout(WITHIN_S):
                    await self._ask(spec, target.entries()[0].rstrip("/"))

    async def _ask(self, spec: GraphSpec, entry: str) -> None:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{entry}/v1/models") as response:
                if response.status == HTTPStatus.OK:
                    self.listed = _ids(_json(await response.text()))
            body = body_of(spec.load, 0, stream=False)
            async with session.post(entry + PATHS[spec.load.api], json=body) as response:
                self.answered = str(_json(await response.text()).get("model") or "")


def _json(text: str) -> dict[str, Any]:
    """The JSON object that a text holds. Empty if it holds anything else: not every server has these pages."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _ids(page: dict[str, Any]) -> tuple[str, ...]:
    models = page.get("data")
    named = models if isinstance(models, list) else []
    return tuple(str(one["id"]) for one in named if isinstance(one, dict) and one.get("id"))

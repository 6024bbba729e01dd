"""Open pages in a real browser: headless Chromium, controlled over its DevTools protocol on a loopback port.

async with Browser.open() as browser:
await browser.show(path)
assert await browser.run("document.title") == "…"
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

CHROMIUM: Final = shutil.which("chromium") or shutil.which("google-chrome")
START_S: Final = 20.0
DRAWN_S: Final = 20.0
FLAGS: Final = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0",
    "--window-size=1228,1500", "--hide-scrollbars", "--disable-background-networking",
)  # fmt: skip


class Browser:
    """One page of a browser.

    Attributes:
        complaints: errors and warnings on its console, and exceptions in its scripts.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        """Start a browser with an empty profile, and end it with the context."""
        assert CHROMIUM is not None, "no Chromium: apt-get install chromium"
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            process = await asyncio.create_subprocess_exec(
                CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank",
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
                env={**os.environ, "TMPDIR": profile},
            )  # fmt: skip
            try:
                port = await _port(Path(profile, "DevToolsActivePort"))
                async with aiohttp.ClientSession() as session:
                    async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                        pages = [one for one in await answer.json() if one["type"] == "page"]
                    async with session.ws_connect(
                        pages[0]["webSocketDebuggerUrl"], max_msg_size=1 << 26
                    ) as socket:
                        self = cls(socket)
                        for domain in ("Page", "Runtime", "Log"):
                            await self.call(f"{domain}.enable")
                        yield self
            finally:
                process.terminate()
                await process.wait()

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Make one call of the protocol. Complaints of the page that arrive meanwhile are noted."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            said = await self._socket.receive_json(timeout=60)
            if said.get("id") == number:
                result: dict[str, Any] = said.get("result", {})
                return result
            self._note(said)

    def _note(self, said: dict[str, Any]) -> None:
        params = said.get("params", {})
        match said.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(params["exceptionDetails"]["text"])
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.complaints.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning"):
                self.complaints.append(str(params["args"]))

    async def run(self, code: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        found = await self.call("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def show(self, path: Path) -> None:
        """Load a page and wait until it reports that everything is drawn."""
        await self.call("Page.navigate", url=path.resolve().as_uri())
        async with asyncio.timeout(DRAWN_S):
            while await self.run("document.body && document.body.dataset.drawn") != "yes":
                await asyncio.sleep(0.02)

    async def point_at(self, x: float, y: float) -> None:
        """Move the mouse to a point of the window."""
        await self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    async def picture(self, path: Path) -> None:
        """Save a PNG of the whole page."""
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


async def _port(file: Path) -> int:
    """Return the port that the browser chose and wrote into its profile."""
    async with asyncio.timeout(START_S):
        while not file.is_file() or len(lines := file.read_text().splitlines()) < 2:
            await asyncio.sleep(0.02)
    return int(lines[0])

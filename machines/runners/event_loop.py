"""The event loop of the runs."""

from __future__ import annotations

import asyncio


def new_loop() -> asyncio.AbstractEventLoop:
    """A new uvloop, or an asyncio loop where uvloop is not installed. uvloop saves the clients a sixth of the CPU time of a request."""
    try:
        import uvloop  # noqa: PLC0415 - not there on every platform
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()

"""Ask, while a run goes on, whether its history so far is enough, without making the clients late.

Judging is pure Python and takes time in proportion to the history: about 0.4 s for 60,000 requests. It therefore runs in a worker thread,
on a snapshot that nothing changes. One question is asked at a time. The interpreter gives the event loop its turn only after the
switch interval, 5 ms by default, so the interval is shorter while a question is being answered. Between two questions there is a pause in
proportion to what the last one took, which bounds their share of the time.

A question is asked only if its answer may have changed. An early verdict saves time and decides nothing: each complete history is judged.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

from graphquake.harness.history.history import History

Enough: TypeAlias = Callable[[History], bool]

# A pause lasts at least so many times what the question before it took: judging has a tenth of the time at most.
PAUSE_FACTOR: Final = 9.0
# Without anything new, the passing of time alone may break a promise; so a question is asked at least this often.
ASK_AT_LEAST_EVERY_S: Final = 2.0
# The interpreter's switch interval while a question is being answered.
SWITCH_INTERVAL_S: Final = 0.0005


class EarlyVerdict:
    """Asks about one run.

    Args:
        enough: the question. It is called in a worker thread.
    """

    def __init__(self, enough: Enough) -> None:
        self._enough = enough
        self._asked_at_s = -ASK_AT_LEAST_EVERY_S
        self._pause_until_s = 0.0
        self._known: object = None

    def is_due(self, now_s: float, known: object) -> bool:
        """True if it is time for a question.

        Args:
            now_s: the monotonic time.
            known: stands for what has been seen so far; a new question waits until it differs, or for `ASK_AT_LEAST_EVERY_S`.
        """
        is_new = known != self._known or now_s - self._asked_at_s >= ASK_AT_LEAST_EVERY_S
        return is_new and now_s >= self._pause_until_s

    async def ask(self, snapshot: History, known: object) -> bool:
        """Ask whether this history, which nothing changes any more, is enough."""
        begun_s = self._asked_at_s = time.monotonic()
        self._known = known
        is_enough = await asyncio.to_thread(self._answer, snapshot)
        now_s = time.monotonic()
        self._pause_until_s = now_s + PAUSE_FACTOR * (now_s - begun_s)
        return is_enough

    def _answer(self, snapshot: History) -> bool:
        with short_switch_interval():
            return self._enough(snapshot)


_lock = threading.Lock()
_users = 0
_usual_s = 0.0


@contextmanager
def short_switch_interval() -> Iterator[None]:
    """Let the interpreter switch between threads sooner. The usual interval is back when the last of all users has left."""
    global _users, _usual_s  # noqa: PLW0603 - the interval belongs to the process
    with _lock:
        if not _users:
            _usual_s = sys.getswitchinterval()
            sys.setswitchinterval(min(_usual_s, SWITCH_INTERVAL_S))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                sys.setswitchinterval(_usual_s)

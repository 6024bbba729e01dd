"""Ask, while a run goes on, whether its history so far is enough, without making the clients late.

Judging is pure Python and takes time in proportion to the history: on two cores about 0.5 s for 25,000 requests. It therefore runs in a
worker thread, on a snapshot that never changes. One question is asked at a time. The thread still competes with the event loop for
the interpreter: while it judged, requests left up to 0.1 s late at 1,000 a second. Two things bound that. The interpreter's switch
interval, 5 ms by default, is shorter meanwhile. And a pause in proportion to the CPU time of the last question follows each one, so that
judging has 2 % of the time. In the usual run of a few hundred requests a pause is 0.2 s. In a long run the pauses grow with the history.

A question is asked only if its answer may have changed. An early verdict only saves time: each complete history is judged again.
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

# The shortest pause after a question, as a multiple of the CPU time of that question.
PAUSE_FACTOR: Final = 49.0
# Time alone may break a promise, so a question is asked at least this often.
ASK_AT_LEAST_EVERY_S: Final = 2.0
# The interpreter's switch interval during a question. It is short so that the event loop soon gets its turn.
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
            known: the number of things seen so far. A new question waits until it differs, or for `ASK_AT_LEAST_EVERY_S`.
        """
        is_new = known != self._known or now_s - self._asked_at_s >= ASK_AT_LEAST_EVERY_S
        return is_new and now_s >= self._pause_until_s

    async def ask(self, snapshot: History, known: object) -> bool:
        """Ask whether this history, which does not change any more, is enough."""
        self._asked_at_s = time.monotonic()
        self._known = known
        is_enough, cpu_s = await asyncio.to_thread(self._answer, snapshot)
        self._pause_until_s = time.monotonic() + PAUSE_FACTOR * cpu_s
        return is_enough

    def _answer(self, snapshot: History) -> tuple[bool, float]:
        """The answer, and the CPU time that it took."""
        begun_s = time.thread_time()
        with short_switch_interval():
            is_enough = self._enough(snapshot)
        return is_enough, time.thread_time() - begun_s


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

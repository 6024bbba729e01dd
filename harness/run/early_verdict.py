"""Ask during a run whether its history so far is enough to end the run, without making the clients late.

The question is a function of the history, e.g. "does it contain this violation?". To answer it, the history is judged. Judging is pure
Python and takes time in proportion to the history: on two cores about 0.5 s for 25,000 requests. It therefore runs in a worker thread, on
a snapshot that never changes. One question is asked at a time.

The worker thread still competes with the event loop for the interpreter. In a test with 1,000 requests a second, requests left up to 0.1 s
late because of it. Two measures limit this delay. During a question, the interpreter's switch interval is shorter than its default of
5 ms. After each question comes a pause in proportion to the CPU time of that question. So judging takes 2 % of the time. In the usual run
of a few hundred requests a pause is 0.2 s. In a long run the pauses grow with the history.

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
# A promise may be broken by the passing of time alone, without a new event. So a question becomes due after this time in any case.
ASK_AT_LEAST_EVERY_S: Final = 2.0
# The interpreter's switch interval during a question. It is short so that the event loop need not wait long for the interpreter.
SWITCH_INTERVAL_S: Final = 0.0005


class EarlyVerdict:
    """Asks whether the history of one run so far is enough to end the run.

    Args:
        enough: the question: it returns true if the history is enough. It is called in a worker thread.
    """

    def __init__(self, enough: Enough) -> None:
        self._enough = enough
        self._asked_at_s = -ASK_AT_LEAST_EVERY_S
        self._pause_until_s = 0.0
        self._known: object = None

    def is_due(self, now_s: float, known: object) -> bool:
        """True if a question should be asked now. It must wait for the end of the pause after the last question.

        Args:
            now_s: the monotonic time.
            known: stands for the contents of the history, e.g. its numbers of events and failures. If it equals that of the last question,
                the next question waits until `ASK_AT_LEAST_EVERY_S` seconds have passed.
        """
        is_new = known != self._known or now_s - self._asked_at_s >= ASK_AT_LEAST_EVERY_S
        return is_new and now_s >= self._pause_until_s

    async def ask(self, snapshot: History, known: object) -> bool:
        """Return true if the history is enough to end the run.

        Args:
            snapshot: the history so far. Nothing may change it during the call.
            known: as for `is_due`.
        """
        self._asked_at_s = time.monotonic()
        self._known = known
        is_enough, cpu_s = await asyncio.to_thread(self._answer, snapshot)
        self._pause_until_s = time.monotonic() + PAUSE_FACTOR * cpu_s
        return is_enough

    def _answer(self, snapshot: History) -> tuple[bool, float]:
        """The answer to the question, and the CPU time that the question took, in seconds."""
        begun_s = time.thread_time()
        with short_switch_interval():
            is_enough = self._enough(snapshot)
        return is_enough, time.thread_time() - begun_s


_lock = threading.Lock()
_users = 0
_usual_s = 0.0


@contextmanager
def short_switch_interval() -> Iterator[None]:
    """Make the interpreter switch between threads sooner in this block. The usual interval returns when no thread is in such a block."""
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

"""Make the drawing of plans independent of the source code around it.

Hypothesis collects the numbers and texts in the source of every loaded module outside site-packages, and draws some of them.
So an edit of an unrelated file, or one more import, changes the plans that a seed draws. A seed must draw the same plans next week.

Hypothesis has no setting for this. The two names below are internal, so `proptests/test_drawing.py` holds them against the lowest and
the newest version that we support. In a later version without these names, a search still works, but its seed is tied to the source.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants


@contextmanager
def no_constants_from_source() -> Iterator[None]:
    """Let Hypothesis draw without the constants of loaded modules while the context lasts. Its own constants stay in use."""
    if not (hasattr(providers, "_get_local_constants") and hasattr(providers, "CONSTANTS_CACHE")):
        yield
        return
    collect, cache = providers._get_local_constants, providers.CONSTANTS_CACHE  # noqa: SLF001
    providers._get_local_constants = Constants  # noqa: SLF001
    # The old cache may hold constants that other tests of the session found in the source.
    providers.CONSTANTS_CACHE = type(cache)(cache.max_size)
    try:
        yield
    finally:
        providers._get_local_constants = collect  # noqa: SLF001
        providers.CONSTANTS_CACHE = cache

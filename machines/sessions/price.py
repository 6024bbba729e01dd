"""The price of a run, as the last search of the graph learned it: `price.json` in the folder of its results.

The price decides which drawn plans are worth a run (see `novelty`). A search learns it from its own runs. Until then it takes the price of
the search before. The plans that a seed draws do not depend on it. The file is not needed: a damaged or missing one counts as no price.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Final

NAME: Final = "price.json"
# A price that is not within these bounds was not written by a search, in seconds.
RUN_S_MIN: Final = 0.0
RUN_S_MAX: Final = 24 * 3600.0


def read_price(folder: Path) -> float | None:
    """Return the seconds of a run without the waits of its plan, or None if they are not known.

    Args:
        folder: the folder of a graph's results.
    """
    try:
        data = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    run_s = data.get("run_s") if isinstance(data, dict) else None
    if isinstance(run_s, (int, float)) and RUN_S_MIN < run_s < RUN_S_MAX:
        return float(run_s)
    return None


def write_price(folder: Path, run_s: float | None) -> None:
    """Keep the price for the next search. None means that this search has not learned one: the older price stays.

    Args:
        folder: the folder of a graph's results.
        run_s: the seconds of a run without the waits of its plan.
    """
    if run_s is not None:
        with suppress(OSError):
            (folder / NAME).write_text(
                f"{json.dumps({'run_s': round(run_s, 2)})}\n", encoding="utf-8"
            )

"""The frontend says that it is ready, whether there is anybody behind it or not.

Modelled on ray 43076: proxy healthy with no routes; dynamo 4904: health and models disagree.

In: frontend
Breaks: views_agree
Graph: faults = ["kill", "terminate"]
Plan: kill prefill 0; wait 2.60 s
"""

from __future__ import annotations

from graphquake.harness.reference.frontend import Frontend
from graphquake.harness.reference.node import main


class Bug(Frontend):
    """Ready."""

    def health(self) -> str:
        """Always."""
        return ""


if __name__ == "__main__":
    main(Bug)

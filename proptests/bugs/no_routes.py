"""The frontend reports that it is ready even if no worker is behind it.

Modelled on ray 43076: a proxy is healthy without routes; and dynamo 4904: health and models disagree.

In: frontend
Breaks: views_agree
Graph: faults = ["kill", "terminate"]
Plan: kill prefill 0; wait 2.60 s
"""

from __future__ import annotations

from graphquake.harness.reference.frontend import Frontend
from graphquake.harness.reference.node import main


class Bug(Frontend):
    """Reports that it is ready in every state."""

    def health(self) -> str:
        """Report no problem."""
        return ""


if __name__ == "__main__":
    main(Bug)

"""The layers of `harness` and `machines`: imports go only down."""

from __future__ import annotations

# From the lowest layer up. Packages in one line may import each other, but their modules form no circle.
LAYERS = {
    "harness": (
        "errors", "reference", "graphs", "spec", "history", "targets", "promises", "clients",
        "reports", "kubernetes observation processes", "run", "picture",
    ),
    "machines": (
        "plans", "runners", "shrinking", "cases", "findings", "reports", "sessions", "frontends",
    ),
}  # fmt: skip

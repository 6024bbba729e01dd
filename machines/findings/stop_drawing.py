"""The exception that ends the drawing of plans."""

from __future__ import annotations


class StopDrawing(BaseException):
    """Ends the drawing of plans. Hypothesis passes it on, and does not treat it as a failure of the plan that was just drawn.

    Args:
        error: the error that ends the drawing, or None if it ends without an error.
    """

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error

"""The scenarios of Dynamo's fault tolerance suite, live. Run them by `pytest proptests/test_scenarios.py -k decode_worker --respawn`."""

from __future__ import annotations

from graphquake.scenarios import test_scenario

__all__ = ["test_scenario"]

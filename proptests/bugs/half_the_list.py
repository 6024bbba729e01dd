"""A restarted frontend ignores one of the workers that started before it.

Modelled on dynamo 4904: a restarted frontend finds 0 to 2 of the workers.

In: frontend
Breaks: views_agree
Graph: roles.frontend.replicas = 2
Plan: kill frontend 0
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import starts

from graphquake.harness.reference.frontend import Frontend
from graphquake.harness.reference.membership import Directory, Instance
from graphquake.harness.reference.node import main


class Half(Directory):
    """Ignores the first decode worker that it learns about."""

    overlooked = ""

    def learn(self, view: Any, instances: Sequence[Instance]) -> None:
        """Learn all instances except that one."""
        if not self.overlooked:
            self.overlooked = next((one.id for one in instances if one.role == "decode"), "")
        super().learn(view, [one for one in instances if one.id != self.overlooked])


class Bug(Frontend):
    """Uses the faulty directory from its second incarnation on."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        if starts.count(arguments.name) > 1:
            self.directory = Half(arguments.registries)


if __name__ == "__main__":
    main(Bug)

"""Open the target of a graph file: the only module that names the kinds of targets.

A new kind of target is a class that follows `Target` and a function of the type `OpenTarget` that opens it.
`open_target` chooses between these functions. Today a graph file can describe only graphs that Graphquake launches itself.
Callers with another kind of target pass their own `OpenTarget` to `run_live`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

from graphquake.harness.processes.supervisor import Supervisor
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.targets.target import Target

# Arguments: the spec of the graph, and an existing folder for the graph's own files. Log files belong into its subfolder `logs`.
# Entering the context returns a graph with all replicas ready, or raises a GraphError. Leaving the context ends the graph.
OpenTarget: TypeAlias = Callable[[GraphSpec, Path], AbstractAsyncContextManager[Target]]


def open_target(spec: GraphSpec, folder: Path) -> AbstractAsyncContextManager[Target]:
    """Open the kind of target that the graph file asks for (see `OpenTarget`)."""
    return Supervisor.launch(spec, folder)

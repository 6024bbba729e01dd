"""Search for plans that break promises: drawing, judging, shrinking and saving them. Starts no process.

For users: `chaos("my.toml")` makes a test class out of a graph file, `PlanMachine` is what to subclass for steps of one's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphquake.machines.plans.machine import PlanMachine as PlanMachine

__all__ = ["PlanMachine", "chaos"]


def __getattr__(name: str) -> Any:
    # The pytest plugin lives in this package: importing it must not import hypothesis.
    if name == "PlanMachine":
        from graphquake.machines.plans.machine import PlanMachine  # noqa: PLC0415

        return PlanMachine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def chaos(
    graph: str, *, promises: tuple[str, ...] = (), machine: type[PlanMachine] | None = None
) -> type:
    """A pytest test class that searches a graph: `TestMine = chaos("my.toml")`.

    Args:
        graph: a ready-made graph, or a TOML file (relative to where pytest runs).
        promises: further promises, as `module:name` (see `graphquake.harness.promises.builtin`).
        machine: a subclass of `PlanMachine` with further rules.
    """
    from graphquake.machines.frontends.searches import chaos_class  # noqa: PLC0415

    return chaos_class(graph, promises, machine)

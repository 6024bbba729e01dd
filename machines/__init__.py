"""Search for plans that break promises: draw, judge, shrink and save them. This package itself starts no process.

For users: `chaos("my.toml")` makes a test class from a graph file. A subclass of `PlanMachine` may add rules that draw steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphquake.machines.plans.machine import PlanMachine as PlanMachine

__all__ = ["PlanMachine", "chaos"]


def __getattr__(name: str) -> Any:
    # Every pytest loads the plugin in this package. So an import of this package must not import hypothesis.
    if name == "PlanMachine":
        from graphquake.machines.plans.machine import PlanMachine  # noqa: PLC0415

        return PlanMachine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def chaos(
    graph: str, *, promises: tuple[str, ...] = (), machine: type[PlanMachine] | None = None
) -> type:
    """Make a pytest test class that searches a graph for broken promises: `TestMine = chaos("my.toml")`.

    Args:
        graph: a ready-made graph, or a TOML file (its path is relative to the working folder of pytest).
        promises: further promises, as `module:name` (see `graphquake.harness.promises.builtin`).
        machine: a subclass of `PlanMachine` with further rules.
    """
    from graphquake.machines.frontends.searches import chaos_class  # noqa: PLC0415

    return chaos_class(graph, promises, machine)

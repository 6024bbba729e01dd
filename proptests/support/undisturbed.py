"""Live runs of tests. A run that other work on the machine disturbed is repeated, as a search does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphquake.harness.run import live
from graphquake.harness.run.live import LiveRun
from graphquake.harness.run.noise.undisturbed import undisturbed
from graphquake.harness.run.reuse import ReusableGraph
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan


async def run_live(spec: GraphSpec, plan: Plan, folder: Path, **options: Any) -> LiveRun:
    """Run a plan as `harness.run.live.run_live` does, and repeat the run while other work disturbs it.

    Args:
        spec, plan, folder: as for `harness.run.live.run_live`.
        options: its other arguments. A run on a used graph (`graph`) is not repeated, since it changes that graph.
    """
    if "graph" in options:
        return await live.run_live(spec, plan, folder, **options)
    kept: list[ReusableGraph] = []

    async def once() -> LiveRun:
        while kept:  # by the run that is repeated now
            await kept.pop().close()
        run = await live.run_live(spec, plan, folder, **options)
        kept.extend(filter(None, [run.reusable]))
        return run

    return await undisturbed(once)

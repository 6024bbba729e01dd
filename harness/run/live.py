"""One whole run: launch a graph of its own, execute a plan against it, judge it, and put all of it into one folder.

The folder is of bounded size whatever the graph does: work files go when the run ends, and logs lose their middle when they are long.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shlex
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from graphquake.harness.errors import GraphError
from graphquake.harness.history.history import History
from graphquake.harness.processes.reservations import gpus
from graphquake.harness.promises.builtin import judge
from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.reports.suite_logs import bound_log
from graphquake.harness.run.execute import Enough, Watch, execute
from graphquake.harness.run.reuse import Warm
from graphquake.harness.spec.graph import GraphSpec, expand
from graphquake.harness.spec.plan import Plan

VERSION_WITHIN_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run that took place.

    Attributes:
        live_s: all of it: from launching the graph, or healing it, to the end of its last process, or of the run.
        start_s: from launching the graph to its first right answer.
        used: whether the graph had been used before.
        warm: the graph, if it was to be kept.
    """

    history: History
    verdict: Verdict
    folder: Path
    live_s: float
    start_s: float
    used: bool = False
    warm: Warm | None = None


async def run_live(
    spec: GraphSpec,
    plan: Plan,
    folder: Path,
    *,
    watch: Watch | None = None,
    enough: Enough | None = None,
    to_the_end: bool = False,
    host: dict[str, str] | None = None,
    warm: Warm | None = None,
    keep: bool = False,
) -> LiveRun:
    """Run a plan on a graph of its own, or on one that was used before.

    Args:
        folder: where everything of the run goes; made if need be, emptied if not.
        watch, enough, to_the_end: as for `execute`.
        host: what to write down about machine and versions.
        warm: a graph that was used before; if nothing of that can be left of it, a fresh one is launched after all.
        keep: leave the graph running, for another run, in `LiveRun.warm`.

    Raises:
        GraphError: if the graph does not come to serve.
    """
    begun_s = time.monotonic()
    warm = await _healed(warm) if warm else None
    used = warm is not None
    fresh = _make_folders(folder, apart=keep, used=used)
    work = warm.work if warm else fresh
    kept: Warm | None = None
    try:
        if warm is None:
            warm = await Warm.launch(spec, work)
        async with warm.lifetime:
            history = await execute(
                warm.target, plan, watch=watch, enough=enough, to_the_end=to_the_end
            )
            if keep:
                kept = replace(warm.held_on(), uses=warm.uses + 1)
    finally:
        _keep_logs(work, folder, goes_on=kept is not None)
        if kept is None:
            shutil.rmtree(work, ignore_errors=True)
    live_s = time.monotonic() - begun_s
    history.host |= host or {}
    verdict = judge(history)
    history.save(folder)
    (folder / "verdict.json").write_text(json.dumps(verdict.to_json(), indent=1) + "\n")
    return LiveRun(history, verdict, folder, live_s, warm.start_s, used, kept)


def _make_folders(folder: Path, *, apart: bool, used: bool) -> Path:
    """Make the folder of a run, and, unless it is used already, that of its graph: apart if it may outlive the run."""
    shutil.rmtree(folder, ignore_errors=True)
    work = folder.with_name(f"{folder.name}-graph") if apart else folder / "graph"
    folder.mkdir(parents=True)
    if not used:
        work.mkdir()
    return work


async def _healed(warm: Warm) -> Warm | None:
    """The graph, if it is as good as a fresh one; else it is ended."""
    healed: Warm | None = None
    try:
        with suppress(GraphError):
            async with warm.lifetime:
                if await warm.heal():
                    healed = warm.held_on()
    finally:
        if healed is None:
            shutil.rmtree(warm.work, ignore_errors=True)
    return healed


def _keep_logs(work: Path, folder: Path, *, goes_on: bool) -> None:
    """Keep the logs, bounded: of what the graph wrote, only they stay. One that goes on writes into its own."""
    if not (work / "logs").is_dir():
        return
    if goes_on:
        shutil.copytree(work / "logs", folder / "logs")
    else:
        (work / "logs").rename(folder / "logs")
    for log in (folder / "logs").iterdir():
        bound_log(log)


async def describe_host(spec: GraphSpec) -> dict[str, str]:
    """The machine, and the versions that the graph file asks for.

    Raises:
        GraphError: if one of its version commands fails.
    """
    cores = len(os.sched_getaffinity(0))
    count = len(gpus())
    found = {
        "host": f"{cores} cores, {f'{count} GPUs' if count else 'no GPU'}",
        "python": platform.python_version(),
    }
    words = {"python": spec.python, "graph_dir": str(spec.path.parent), "model": spec.load.model}
    for name, command in spec.versions.items():
        argv = [expand(word, lambda name: words.get(name, "")) for word in shlex.split(command)]
        found[name] = await _first_line(f"{spec.path.name}: versions.{name}", argv)
    return found


async def _first_line(what: str, argv: list[str]) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise GraphError(f"{what}: {argv[0]}: {error.strerror}") from None
    try:
        out, err = await asyncio.wait_for(process.communicate(), VERSION_WITHIN_S)
    except TimeoutError:
        process.kill()
        raise GraphError(f"{what}: gave no answer within {VERSION_WITHIN_S:g} s") from None
    if process.returncode != 0:
        last = (err or out).decode("utf-8", "replace").strip().splitlines()[-1:]
        raise GraphError(f"{what}: failed: {''.join(last)}")
    lines = out.decode("utf-8", "replace").strip().splitlines()
    version = next((line for line in lines if line.startswith("Version: ")), "")
    return version.removeprefix("Version: ") or (lines[0] if lines else "?")

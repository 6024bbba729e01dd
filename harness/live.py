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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from graphquake.harness.errors import GraphError
from graphquake.harness.execute import Enough, Watch, execute, first_answer
from graphquake.harness.history import History, bound_log
from graphquake.harness.plan import Plan
from graphquake.harness.ports import gpus
from graphquake.harness.promises import judge
from graphquake.harness.spec import GraphSpec, expand
from graphquake.harness.supervisor import Supervisor
from graphquake.harness.verdict import Verdict

VERSION_WITHIN_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run that took place.

    Attributes:
        live_s: all of it, from launching the graph to the end of its last process.
        start_s: from launching the graph to its first right answer.
    """

    history: History
    verdict: Verdict
    folder: Path
    live_s: float
    start_s: float


async def run_live(
    spec: GraphSpec,
    plan: Plan,
    folder: Path,
    *,
    watch: Watch | None = None,
    enough: Enough | None = None,
    to_the_end: bool = False,
    host: dict[str, str] | None = None,
) -> LiveRun:
    """Run a plan on a graph of its own.

    Args:
        folder: where everything of the run goes; made if need be, emptied if not.
        watch, enough, to_the_end: as for `execute`.
        host: what to write down about machine and versions.

    Raises:
        GraphError: if the graph does not come to serve.
    """
    shutil.rmtree(folder, ignore_errors=True)
    work = folder / "graph"
    work.mkdir(parents=True)
    begun_s = time.monotonic()
    try:
        async with Supervisor.launch(spec, work) as target:
            await first_answer(target)
            start_s = time.monotonic() - begun_s
            history = await execute(target, plan, watch=watch, enough=enough, to_the_end=to_the_end)
    finally:
        _tidy(work, folder)
    live_s = time.monotonic() - begun_s
    history.host |= host or {}
    verdict = judge(history)
    history.save(folder)
    (folder / "verdict.json").write_text(json.dumps(asdict(verdict), indent=1) + "\n")
    return LiveRun(history, verdict, folder, live_s, start_s)


def _tidy(work: Path, folder: Path) -> None:
    """Keep the logs, bounded; what the graph wrote besides goes."""
    if (work / "logs").is_dir():
        for log in (work / "logs").iterdir():
            bound_log(log)
        (work / "logs").rename(folder / "logs")
    shutil.rmtree(work, ignore_errors=True)


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

"""Carry out one whole run. Open a graph or heal a used one, execute a plan against it, judge the history, and save all in one folder.

The size of the folder is bounded. The graph's own files are removed when the graph ends, and the middle of a long log is cut out.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import platform
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from graphquake.harness.errors import single_error
from graphquake.harness.history.history import History
from graphquake.harness.history.host import Host
from graphquake.harness.processes.resources.gpus import visible_gpus
from graphquake.harness.promises.judgement import judge
from graphquake.harness.promises.own import OwnPromiseError
from graphquake.harness.promises.verdict import Verdict
from graphquake.harness.reports.suite_logs import bound_log
from graphquake.harness.run.early_verdict import Enough
from graphquake.harness.run.execute import execute
from graphquake.harness.run.open_target import OpenTarget, open_target
from graphquake.harness.run.reuse import ReusableGraph
from graphquake.harness.run.status import Watch
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import Plan
from graphquake.harness.spec.templates.words import expand

# The time limit for one version command of a graph file.
VERSION_WITHIN_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class LiveRun:
    """The result of one run.

    Attributes:
        folder: the folder with the files of the run.
        live_s: seconds from opening or healing the graph to the end of its last process. If the graph stays open, to the end of the run.
        start_s: seconds from opening the graph to its first right answer.
        start_cores: the mean number of cores that the graph used in that time.
        used: true if the graph had served another run before.
        reusable: the graph if it stays open for another run, otherwise None.
    """

    history: History
    verdict: Verdict
    folder: Path
    live_s: float
    start_s: float
    start_cores: float = 0.0
    used: bool = False
    reusable: ReusableGraph | None = None


async def run_live(
    spec: GraphSpec,
    plan: Plan,
    folder: Path,
    *,
    watch: Watch | None = None,
    enough: Enough | None = None,
    to_the_end: bool = False,
    patient: bool = True,
    host: Host | None = None,
    graph: ReusableGraph | None = None,
    keep: bool = False,
    opener: OpenTarget = open_target,
) -> LiveRun:
    """Run a plan on a fresh graph, or on a graph that has served another run.

    Args:
        spec: the graph, as its file describes it.
        plan: the steps to carry out.
        folder: receives all files of the run. It is made if it does not exist, and emptied if it does.
        watch, enough, to_the_end, patient: as for `execute`.
        host: facts about the machine and the versions. They are saved with the history.
        graph: a graph that has served another run, or that was opened ahead. If it cannot be healed, a fresh one is opened.
        keep: if true, leave the graph open and return it as `LiveRun.reusable`. Otherwise end it.
        opener: opens a fresh graph.

    Raises:
        GraphError: if the graph does not become ready, or gives no right answer.
        InputError: if the oracle or a promise of the user raises.
    """
    begun_s = time.monotonic()
    if graph is not None and not await graph.heal_or_close():
        graph = None
    used = graph is not None and graph.uses > 0
    fresh = _make_folders(folder, apart=keep, is_open=graph is not None)
    work = graph.work if graph else fresh
    goes_on = False
    with _saved_if_own_promise_fails(folder):
        try:
            with single_error():
                if graph is None:
                    graph = await ReusableGraph.open(spec, work, opener)
                async with graph.lent(keep=keep) as target:
                    history = await execute(
                        target, plan,
                        watch=watch, enough=enough, to_the_end=to_the_end, patient=patient,
                    )  # fmt: skip
            goes_on = keep
        finally:
            _save_files(work, folder, goes_on=goes_on)
        live_s = time.monotonic() - begun_s
        history.host = replace(host or Host(), began=history.host.began)
        reusable = graph if goes_on else None
        verdict = await _judged(history, reusable)
    history.save(folder)
    (folder / "verdict.json").write_text(json.dumps(verdict.to_json(), indent=1) + "\n")
    return LiveRun(
        history, verdict, folder, live_s, graph.start_s, graph.start_cores, used, reusable
    )


async def _judged(history: History, reusable: ReusableGraph | None) -> Verdict:
    """Judge a history. If a promise of the user fails, end the graph that stayed open for another run."""
    try:
        # To judge a long run takes half a second. A thread does it, because other runs may use this event loop.
        return await asyncio.to_thread(judge, history)
    except BaseException:
        if reusable is not None:
            await reusable.close()
        raise


@contextmanager
def _saved_if_own_promise_fails(folder: Path) -> Iterator[None]:
    """If a promise of the user fails, save the history that it was called with, and name the command that calls it again."""
    try:
        yield
    except OwnPromiseError as error:
        error.history.save(folder)
        text = f"{error}; call it again: graphquake check {folder}"
        raise OwnPromiseError(text, error.history) from None


def _make_folders(folder: Path, *, apart: bool, is_open: bool) -> Path:
    """Make the folder of a run and, for a fresh graph, the folder of the graph.

    Args:
        folder: the folder of the run. Old contents are removed.
        apart: true if the graph may outlive the run. Its folder is then beside the folder of the run, otherwise within it.
        is_open: true if the graph is open already, so that it has its folder.

    Returns:
        The folder for a new graph.
    """
    shutil.rmtree(folder, ignore_errors=True)
    work = folder.with_name(f"{folder.name}-graph") if apart else folder / "graph"
    for number in itertools.count(2):
        if is_open or not work.exists():
            break
        # This run is a repeat, and the graph of the run before it is still open.
        work = folder.with_name(f"{folder.name}.{number}-graph")
    folder.mkdir(parents=True)
    if not is_open:
        work.mkdir()
    return work


def _save_files(work: Path, folder: Path, *, goes_on: bool) -> None:
    """Copy the graph's logs and rendered files into the run's folder. If the graph does not go on, remove its own folder."""
    _save_logs(work, folder, goes_on=goes_on)
    if (work / "files").is_dir():
        shutil.copytree(work / "files", folder / "files")
    if not goes_on:
        shutil.rmtree(work, ignore_errors=True)


def _save_logs(work: Path, folder: Path, *, goes_on: bool) -> None:
    """Copy the graph's logs into the run's folder and shorten them there. If the graph does not go on, move them instead."""
    if not (work / "logs").is_dir():
        return
    if goes_on:
        shutil.copytree(work / "logs", folder / "logs")
    else:
        (work / "logs").rename(folder / "logs")
    for log in (folder / "logs").iterdir():
        bound_log(log)


async def describe_host(spec: GraphSpec) -> Host:
    """Describe the machine, and run the version commands of the graph file.

    A version command that fails does not end a session. Its entry then says that the version is unknown, and gives the reason.
    The commands see the environment of Graphquake, overridden by the file's `[env]`.
    """
    versions = {}
    words = {"python": spec.python, "graph_dir": str(spec.path.parent), "model": spec.load.model}
    for name, command in spec.versions.items():
        argv = [expand(word, lambda name: words.get(name, "")) for word in shlex.split(command)]
        versions[name] = await _first_line(argv, _env(spec, words))
    return Host(
        cores=len(os.sched_getaffinity(0)),
        gpus=len(visible_gpus()),
        python=platform.python_version(),
        versions=versions,
    )


def _env(spec: GraphSpec, words: dict[str, str]) -> dict[str, str]:
    """The environment of version commands. Values that name a port or a run's folder are left out, because none exist yet."""
    env = dict(os.environ)
    for name, template in spec.env.items():
        with suppress(KeyError):
            env[name] = expand(template, words.__getitem__)
    return env


async def _first_line(argv: list[str], env: dict[str, str]) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=env
        )
    except OSError as error:
        return f"unknown ({argv[0]}: {error.strerror})"
    try:
        out, err = await asyncio.wait_for(process.communicate(), VERSION_WITHIN_S)
    except TimeoutError:
        process.kill()
        return f"unknown (no answer within {VERSION_WITHIN_S:g} s)"
    if process.returncode != 0:
        last = (err or out).decode("utf-8", "replace").strip().splitlines()[-1:]
        return f"unknown ({': '.join([f'exit status {process.returncode}', *last])})"
    # Some programs, such as nginx, print their version to stderr.
    lines = (out.strip() or err).decode("utf-8", "replace").strip().splitlines()
    version = next((line for line in lines if line.startswith("Version: ")), "")
    return version.removeprefix("Version: ") or (lines[0] if lines else "?")

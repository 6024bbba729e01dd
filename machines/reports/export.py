"""Write a script that shows a case without this project: its processes, its requests, its steps, and the sign of the bug.

The script is the file `reproduce.py` beside this one, with the case filled in. A maintainer who has never heard of Graphquake can read it.
"""

from __future__ import annotations

import pprint
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from graphquake.harness.clients.answers import body_of
from graphquake.harness.clients.load import PATHS
from graphquake.harness.errors import InputError
from graphquake.harness.processes.layout import FILES, Layout
from graphquake.harness.processes.network.addresses import HUB
from graphquake.harness.processes.replicas import ReplicaState
from graphquake.harness.spec.bounds import Promises
from graphquake.harness.spec.graph import GraphSpec
from graphquake.harness.spec.plan import (
    Burst,
    Kill,
    Respawn,
    Stall,
    Step,
    Terminate,
    Wait,
    WaitReady,
)
from graphquake.harness.spec.steps.network.cut import Cut, Partition
from graphquake.harness.spec.steps.network.reset import Reset
from graphquake.harness.spec.steps.scope import TREE, Child
from graphquake.machines.cases.case import Case
from graphquake.machines.reports.finding_text import promise_text
from graphquake.machines.reports.worker_modules import PROJECT, copy_modules

SCRIPT: Final = "reproduce.py"
NETWORK: Final = "reproduce_network.py"
EMPTY: Final = "CASE: dict[str, Any] = {}\n"
# The number of different prompts. Later answers to a prompt are compared with the first one.
BODIES: Final = 8
# The first port that the script uses. It is below the range from which the kernel takes ports for clients.
FIRST_PORT: Final = 18_100
# The script lengthens each stall by this factor. A case has about the shortest one that breaks its promise, and another machine is not
# exactly as fast.
LONGER: Final = 1.25
# A run goes on for at least this time after the last step, in seconds.
STAY_S: Final = 8.0
# Words that the script replaces when it starts.
WORK: Final = "@WORK@"
HERE: Final = "@HERE@"
PYTHON: Final = "@PYTHON@"


class _Ports:
    """Gives the ports of the script, one after the other."""

    def __init__(self) -> None:
        self._next = FIRST_PORT

    def port(self) -> int:
        """The next port."""
        self._next += 1
        return self._next - 1

    def gpus(self, count: int, *, share: bool = False) -> list[str]:
        """The GPUs of a replica. The script gives every replica those that the user makes visible."""
        del count, share
        return []


def export(case: Case, spec: GraphSpec, folder: Path) -> list[str]:
    """Write the script of a case and the files that its processes need into a folder.

    Args:
        case: the case.
        spec: its graph, under the bounds and the load of the case.
        folder: the folder. It is made if it does not exist.

    Returns:
        Warnings about the limits of the script, in words.

    Raises:
        InputError: if the case has a step or a promise that a script can't show.
    """
    there = _as_exported(spec)
    layout = Layout(there, Path())
    layout.run_dir = Path(WORK)
    layout.assign(_Ports())
    about = _case(case, there, layout)
    code = Path(__file__).with_name(SCRIPT).read_text(encoding="utf-8")
    data = pprint.pformat(about, width=120, sort_dicts=False)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SCRIPT).write_text(
        code.replace(EMPTY, f"CASE: dict[str, Any] = {data}\n"), encoding="utf-8"
    )
    if spec.network == "namespaces":
        shutil.copy2(Path(__file__).with_name(NETWORK), folder)
    _copy_files(spec, repr(about), folder)
    copy_modules(repr(about), folder / FILES)
    return list(_warnings(spec))


def _as_exported(spec: GraphSpec) -> GraphSpec:
    """The graph with the words of the script in place of the paths of this machine."""
    return replace(spec, path=Path(HERE) / FILES / spec.path.name, python=PYTHON)


def _copy_files(spec: GraphSpec, text: str, folder: Path) -> None:
    """Copy the files that the commands name from the folder of the graph file."""
    for one in sorted(spec.path.parent.iterdir()):
        if f"{HERE}/{FILES}/{one.name}" in text:
            (folder / FILES).mkdir(exist_ok=True)
            copy = shutil.copytree if one.is_dir() else shutil.copy2
            copy(one, folder / FILES / one.name)


def _warnings(spec: GraphSpec) -> Iterator[str]:
    for role in spec.roles:
        if role.gpus:
            yield f"roles.{role.name} needs {role.gpus} GPUs: set CUDA_VISIBLE_DEVICES in the script."


def _case(case: Case, spec: GraphSpec, layout: Layout) -> dict[str, Any]:
    last = case.observed[-1] if case.observed else None
    seen = f"{last.broke} of {last.runs} runs" if last else "not counted"
    versions = ", ".join(
        f"{name} {version}" for name, version in (last.versions if last else {}).items()
    )
    load = spec.load
    entry = next(layout.of_role(spec.entry_role.name))
    return {
        "about": "\n".join(
            [
                f"{case.title}",
                f"promised: {promise_text(spec, case.promise)}",
                f"seen: {case.seen}; {seen}{f'; {versions}' if versions else ''}",
                f"ports: {FIRST_PORT} and following",
            ]
        ),
        "promise": case.promise,
        "bound_s": _bound_s(case.promise, spec.promises),
        "steps": [_step(step, spec) for step in case.plan.steps],
        "heal": case.plan.heal == "all",
        "stay_s": max(STAY_S, case.plan.stay_s, spec.lease_s + spec.promises.agree_s + 1.0),
        "restart": spec.restart == "always",
        "network": HUB if spec.network == "namespaces" else "",
        "ready_within_s": max(
            (role.ready.within_s for role in spec.roles if role.ready), default=60.0
        ),
        "start": _start_order(spec),
        "replicas": {str(one): _replica(layout, state) for one, state in layout.replicas.items()},
        "files": {str(path): text for path, text in layout.rendered_files()},
        "lists": [
            {
                "get": layout.fill(state, state.role.listed.get),
                "item": state.role.listed.item,
                "names": [
                    str(one) for one in spec.replicas() if one.role in state.role.listed.roles
                ],
            }
            for state in layout.replicas.values()
            if state.role.listed
        ],
        "load": {
            "url": layout.fill(entry, entry.role.entry).rstrip("/") + PATHS[load.api],
            "rate_per_s": load.rate_per_s,
            "deadline_s": load.deadline_s,
            # Without an oracle, equal prompts may get different right answers.
            "exact": spec.promises.oracle != "none",
            "one_stream_in": round(1 / load.stream) if load.stream else 0,
            "bodies": [body_of(load, number, stream=False) for number in range(BODIES)],
        },
    }


def _replica(layout: Layout, state: ReplicaState) -> dict[str, Any]:
    ready = state.role.ready
    env = {**layout.spec.env, **state.role.env}
    if PROJECT in state.role.command:
        # The copy of this project's modules comes before an installed one.
        env["PYTHONPATH"] = f"{HERE}/{FILES}"
    return {
        "address": state.host,
        "command": shlex.join(layout.command(state)),
        "env": {name: layout.fill(state, template) for name, template in env.items()},
        "ready": {"get": layout.fill(state, ready.get), "body": ready.body} if ready else None,
    }


def _start_order(spec: GraphSpec) -> list[list[str]]:
    """The replicas in groups. Each group starts when the groups before it are ready."""
    done: set[str] = set()
    groups = []
    while len(done) < len(spec.roles):
        now = [role for role in spec.roles if role.name not in done and done.issuperset(role.needs)]
        groups.append(
            [str(one) for one in spec.replicas() if one.role in {role.name for role in now}]
        )
        done |= {role.name for role in now}
    return groups


def _bound_s(promise: str, bounds: Promises) -> float:
    """The time from which on a failure, or a silence, shows the bug, in seconds.

    Raises:
        InputError: if a script can't show this promise.
    """
    known: Mapping[str, float] = {
        "ends": bounds.stall_s,
        "error_window": bounds.window_s,
        "recovery": bounds.all_ok_s,
        "answers": 0.0,
        "views_agree": bounds.agree_s,
    }
    if promise not in known:
        raise InputError(f"export: found the promise {promise}, expected one of {', '.join(known)}")
    return known[promise]


def _step(step: Step, spec: GraphSpec) -> list[Any]:
    """A step as the script reads it.

    Raises:
        InputError: if the script knows no such step.
    """
    match step:
        case Kill(scope=Child() as child):
            return ["kill", str(step.aim), spec.role(step.role).children[child.name]]
        case Kill() if step.scope == TREE:
            return ["kill", str(step.aim)]
        case Terminate() | Respawn():
            return [step.verb, str(step.aim)]
        case Stall():
            return ["stall", str(step.aim), round(step.for_s * LONGER, 2)]
        case Burst() if not (
            step.refused or step.malformed or step.leave_later or step.leave_at_once
        ):
            return ["burst", step.requests, step.over_s, step.leave]
        case Cut() | Partition() | Reset():
            edges = [[str(source), str(to)] for source, to in step.edges(spec)]
            return [
                "reset" if isinstance(step, Reset) else "cut",
                edges,
                round(step.for_s * LONGER, 2),
            ]
        case Wait():
            return ["wait", step.for_s]
        case WaitReady():
            return ["ready"]
    raise InputError(f'export: found the step "{step}", which a script can\'t do')

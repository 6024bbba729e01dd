"""The planted bugs: one module each in `bugs/`, and what its docstring says of it.

A bug is a process of the reference graph with one method or two of its own; the graph knows nothing of it. Its docstring is what a person
reads and what the search of bugs is held against:

    In: processor                     whose command is exchanged for the module
    Breaks: recovery, throughput      the promises that it may break
    Graph: load.rate_per_s = 40       what is different in the graph file, as TOML; perhaps several lines of it
    Plan: kill decode 0; wait 1 s     the minimal plan, by hand
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from graphquake.harness.spec.graph import GraphSpec, load_graph, read_graph
from graphquake.harness.spec.plan import Plan, parse_plan

FOLDER: Final = Path(__file__).parent.parent / "bugs"
HELPERS: Final = ("starts",)


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug.

    Attributes:
        name: of its module; empty for the graph without a bug.
        what: what it does wrong, in a sentence.
        model: the real bug that it is modelled on.
        roles: whose processes have it.
        breaks: the promises that it may break.
        plan: the minimal plan, by hand.
        changes: what is different in the graph file, as TOML.
        spec: the graph with it.
    """

    name: str
    what: str
    model: str
    roles: tuple[str, ...]
    breaks: tuple[str, ...]
    plan: Plan
    changes: str
    spec: GraphSpec


def no_bug() -> Bug:
    """The graph as it is."""
    return Bug("", "the graph as it is", "", (), (), Plan(()), "", load_graph("reference"))


def together(name: str, *bugs: Bug) -> GraphSpec:
    """The graph with several bugs, in processes of different roles, under a name of its own."""
    modules = {role: FOLDER / f"{bug.name}.py" for bug in bugs for role in bug.roles}
    return _with_modules(name, modules, "\n".join(bug.changes for bug in bugs))


def planted() -> dict[str, Bug]:
    """All bugs, by name."""
    paths = sorted(path for path in FOLDER.glob("*.py") if path.stem not in HELPERS)
    return {path.stem: read_bug(path) for path in paths}


def read_bug(path: Path) -> Bug:
    """A bug from its module.

    Raises:
        ValueError: if its docstring does not say all of it.
    """
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    said: dict[str, list[str]] = {}
    for key, value in re.findall(
        r"^(In|Breaks|Graph|Plan|Modelled on)[: ]\s*(.+)$", text, re.MULTILINE
    ):
        said.setdefault(key, []).append(value)
    if missing := {"In", "Breaks", "Plan", "Modelled on"} - said.keys():
        raise ValueError(f"{path}: its docstring does not say {', '.join(sorted(missing))}")
    roles = tuple(said["In"][0].split(", "))
    changes = "\n".join(said.get("Graph", []))
    return Bug(
        name=path.stem,
        what=text.splitlines()[0],
        model=said["Modelled on"][0],
        roles=roles,
        breaks=tuple(said["Breaks"][0].split(", ")),
        plan=parse_plan(path.name, said["Plan"][0].split("; ")),
        changes=changes,
        spec=_with_modules(path.stem, dict.fromkeys(roles, path), changes),
    )


def _with_modules(name: str, modules: Mapping[str, Path], changes: str) -> GraphSpec:
    right = load_graph("reference")
    document = tomllib.loads(right.path.read_text(encoding="utf-8"))
    for role, path in modules.items():
        command = document["roles"][role]["command"]
        document["roles"][role]["command"] = re.sub(r"-m graphquake\.\S+", f"'{path}'", command)
    document["graph"] = name
    return read_graph(f"{name}.py", _merged(document, tomllib.loads(changes)), right.path)


def _merged(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(document)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged

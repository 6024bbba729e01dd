"""Read the planted bugs: one module each in `bugs/`, described by its docstring.

A planted bug is a process of the reference graph that overrides one or two methods. The reference graph does not know about it. The
docstring is for readers, and it states the finding that a search has to make:

    Modelled on …                     the real bug, named in the rest of the line
    In: processor                     the roles whose command runs the module
    Breaks: recovery, throughput      the promises that the bug may break
    Graph: load.rate_per_s = 40       a change of the graph file, in TOML; may appear several times
    Plan: kill decode 0; wait 1 s     the minimal plan, found by hand
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
        name: the name of its module. Empty for the graph without a bug.
        what: its fault, in a sentence.
        model: the real bug that it is modelled on.
        roles: the roles whose processes have the bug.
        breaks: the promises that it may break.
        plan: the minimal plan, found by hand.
        changes: the changes of the graph file, as TOML.
        spec: the graph with the bug.
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
    """Return the reference graph without a bug."""
    return Bug("", "the graph as it is", "", (), (), Plan(()), "", load_graph("reference"))


def together(name: str, *bugs: Bug) -> GraphSpec:
    """Return the reference graph with several bugs, in processes of different roles, under a new name."""
    modules = {role: FOLDER / f"{bug.name}.py" for bug in bugs for role in bug.roles}
    return _with_modules(name, modules, "\n".join(bug.changes for bug in bugs))


def planted() -> dict[str, Bug]:
    """Return all planted bugs by name."""
    paths = sorted(path for path in FOLDER.glob("*.py") if path.stem not in HELPERS)
    return {path.stem: read_bug(path) for path in paths}


def read_bug(path: Path) -> Bug:
    """Read a bug from its module.

    Raises:
        ValueError: if its docstring lacks one of the keys.
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
    return read_graph(f"{name}.py", merged(document, tomllib.loads(changes)), right.path)


def merged(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with changes in it. A table of the changes is merged into the table of that name."""
    found = dict(document)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else value
    return found

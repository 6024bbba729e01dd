"""Imports only go down: the layers of `harness` and `machines`, read from the source with `ast`."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

from support.layers import LAYERS

pytestmark = pytest.mark.simulated

ROOT = Path(__file__).parents[1]
RANKS = {
    (top, package): rank
    for top, layers in LAYERS.items()
    for rank, layer in enumerate(layers)
    for package in layer.split()
}
SUPERVISOR = "harness.processes.supervisor"
# The targets, each with the package that may name it.
TARGETS = {SUPERVISOR: "processes", "harness.kubernetes.target": "kubernetes"}


def imports(root: Path) -> dict[str, set[str]]:
    """Every module of both folders, and the modules that it imports."""
    paths = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for top in LAYERS
        for path in (root / top).rglob("*.py")
    }
    return {module: set(_imported(path, paths.keys())) for module, path in paths.items()}


def _imported(path: Path, modules: Container[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{one.name}" for one in node.names]
            names = [
                one if one.removeprefix("graphquake.") in modules else node.module or ""
                for one in whole
            ]
        yield from (name.removeprefix("graphquake.") for name in names)


def broken_rules(root: Path) -> Iterator[str]:
    """One line for each import that breaks a rule."""
    found = imports(root)
    for module, imported in found.items():
        top, package = (*module.split("."), "")[:2]
        if package and (top, package) not in RANKS:
            yield f"{module}: its package has no layer"
        for other in sorted(imported):
            other_top, other_package = (*other.split("."), "")[:2]
            if top == "harness" and other_top in {"machines", "hypothesis", "pytest"}:
                yield f"{module} imports {other}: harness knows nothing of it"
            if top == other_top and package and other in found:
                rank = RANKS.get((top, package), 0)
                if RANKS.get((top, other_package), len(RANKS)) > rank:
                    yield f"{module} imports {other}, which is above it"
            if package != TARGETS.get(other, package) and module != "harness.run.open_target":
                yield f"{module} names the target {other}, which only `open_target` may do"
    try:
        graphlib.TopologicalSorter(
            {module: imported & found.keys() for module, imported in found.items()}
        ).prepare()
    except graphlib.CycleError as error:
        yield f"circle: {' imports '.join(error.args[1])}"


def test_imports_only_go_down() -> None:
    """No module imports a layer above its own, and no modules import each other in a circle."""
    assert list(broken_rules(ROOT)) == []


@pytest.mark.parametrize(
    ("module", "line", "rule"),
    [
        ("harness/spec/plan.py", "import hypothesis.stateful", "harness knows nothing of it"),
        ("harness/run/live.py", "from graphquake.machines import chaos", "harness knows nothing"),
        ("harness/spec/graph.py", "from graphquake.harness.run import live", "which is above it"),
        ("machines/plans/model.py", "from graphquake.machines.cases import case", "above it"),
        ("machines/tricks/one.py", "import json", "its package has no layer"),
        ("harness/run/live.py", f"import graphquake.{SUPERVISOR}", "names the target"),
        ("machines/cases/case.py", "from graphquake.machines.cases.corpus import A", "circle"),
    ],
)
def test_a_broken_rule_is_reported(tmp_path: Path, module: str, line: str, rule: str) -> None:
    """Each rule finds the import that breaks it."""
    good = {
        "harness/run/live.py": "from graphquake.harness.spec import plan",
        "harness/spec/plan.py": "import json",
        "harness/processes/supervisor.py": "",
        "machines/__init__.py": "",
        "machines/cases/case.py": "from graphquake.harness.run import live",
        "machines/cases/corpus.py": "from graphquake.machines.cases.case import B",
    }
    for name, text in good.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert list(broken_rules(tmp_path)) == []
    (tmp_path / module).parent.mkdir(exist_ok=True)
    (tmp_path / module).write_text(line)
    (broken,) = broken_rules(tmp_path)
    assert rule in broken

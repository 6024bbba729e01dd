"""Tests of the docs: their links work, their examples work, and their tables agree with the code."""

from __future__ import annotations

import configparser
import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from graphquake.harness.spec.graph import GraphSpec, read_graph
from graphquake.harness.spec.plan import parse_plan
from graphquake.machines.frontends.cli import _parser

from support.option_names import SCENARIOS, pytest_options
from support.pages import (
    DOCS,
    FRONT,
    ROOT,
    Block,
    anchors,
    blocks,
    commands,
    links,
    pages,
    sentences,
)

pytestmark = pytest.mark.simulated

README: Final = FRONT[0]
# A block of any other kind would not be checked.
KINDS: Final = {"console", "json", "plan", "python", "text", "toml", "yaml"}
SENTENCE_WORDS_MAX: Final = 32
# Other commands that the docs may show. They are not checked.
FOREIGN: Final = {"cat", "cd", "export", "git", "kubectl", "source", "xdg-open"}


def ids(found: list[Block]) -> list[str]:
    """The names of the tests of blocks."""
    return [str(block) for block in found]


# --------------------------------------------------------------------------------------------------------------- pages


def test_the_readme_is_short() -> None:
    """README.md has at most 100 lines."""
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 100


def test_the_readme_begins_with_two_commands() -> None:
    """The README's first commands set everything up on a fresh machine: one searches, the other one runs the tests."""
    first = next(block for block in blocks("console") if block.page == README)
    lines = [line.partition("#")[0].strip() for line in first.text.splitlines()]
    install = "$ python -m pip install tox && tox -e"
    assert lines == [f"{install} chaos", f"{install} tests"]


def test_the_glossary_is_short() -> None:
    """The glossary explains at most 15 words, and one word once."""
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    assert 10 <= len(words) <= 15
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every link of a page that stays in the project names a file that exists, and a heading that it has."""
    wrong = []
    for target in links(page):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            wrong.append(target)
    assert wrong == []


def test_every_page_can_be_reached() -> None:
    """A reader who starts at the README or at docs/README.md finds every page."""
    seen: set[Path] = set()
    todo = [README, DOCS / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        to = [(page.parent / target.partition("#")[0]).resolve() for target in links(page)]
        todo += [path for path in to if path.suffix == ".md" and path.is_file()]
    assert set(pages()) - seen == set()


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_sentences_are_short(page: Path) -> None:
    """No sentence outside tables and code has more than 32 words."""
    long = [one for one in sentences(page) if len(one.split()) > SENTENCE_WORDS_MAX]
    assert long == []


# ------------------------------------------------------------------------------------------------------------ examples


def test_every_block_has_a_kind_that_is_checked() -> None:
    """Every fenced block names one of the kinds that a test below looks into."""
    assert {str(block): block.kind for block in blocks() if block.kind not in KINDS} == {}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the docs talk about, as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "models"))
    for block in blocks("toml", "python", "plan"):
        name = _file_name(block)
        # A conftest.py would be read by each pytest that runs here.
        if name and name != "conftest.py":
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
    (tmp_path / "my.toml").write_text(_graph_of_the_readme(), encoding="utf-8")
    return tmp_path


def _file_name(block: Block) -> str:
    """The name that a block's first line gives it: `# my_promises.py` or `# my.toml: what it is`."""
    found = re.match(r"# ([\w./-]+\.(?:py|toml|txt))(?:: .*)?$", block.text.splitlines()[0])
    return found[1] if found else ""


def _graph_of_the_readme() -> str:
    (block,) = [block for block in blocks("toml") if block.page == README]
    return block.text


def _check(words: list[str]) -> None:
    """Fail if a command can't be right: a program, an option, an environment or an extra that does not exist."""
    words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    match words:
        case ["graphquake", *rest]:
            _parser().parse_args(_without_redirection(rest))
        case ["pytest", *rest] | ["python", "-m", "pytest", *rest]:
            _check_pytest(rest)
        case ["tox", "-e", name, *rest]:
            _check_tox(name, rest)
        case ["python", "-m", "pip", *rest] | ["pip", *rest] | ["uv", "pip", *rest]:
            _check_extras(rest)
        case ["python", "-m", "venv", _]:
            pass
        case ["python", "-m", module, *rest]:
            _check_bench(module, rest)
        case [program, *_]:
            assert program in FOREIGN


def _without_redirection(words: list[str]) -> list[str]:
    return words[: words.index(">")] if ">" in words else words


def _check_pytest(words: list[str]) -> None:
    options = {word.partition("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)}
    assert options <= pytest_options(SCENARIOS)


def _check_tox(names: str, words: list[str]) -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    for name in names.split(","):
        assert f"testenv:{name}" in tox
        commands = tox[f"testenv:{name}"]["commands"].split()
        if words and commands[0] == "pytest":
            _check_pytest(words[1:])
        elif words and commands[:2] == ["python", "-m"]:
            _check_bench(*_bench_of(commands[2], words))


def _bench_of(module: str, words: list[str]) -> tuple[str, list[str]]:
    """The benchmark that tox runs and its arguments: `bench.{posargs:…}` takes the first word after `--` as the name."""
    words = words[1:]
    return (f"bench.{words[0]}", words[1:]) if "{posargs" in module else (module, words)


def _check_extras(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in words:
        for extras in re.findall(r"\[([\w,]+)\]", word):
            assert set(extras.split(",")) <= set(project["optional-dependencies"])


def _check_bench(module: str, words: list[str]) -> None:
    path = ROOT / "proptests" / f"{module.replace('.', '/')}.py"
    if module == "realbugs":
        path = ROOT / "proptests" / module / "__main__.py"
    else:
        assert module.startswith("bench.")
    text = path.read_text(encoding="utf-8")
    options = {word for word in words if word.startswith("--")}
    assert {option for option in options if f'"{option}"' not in text} == set()


@pytest.mark.parametrize("block", blocks("console"), ids=str)
def test_commands_exist(block: Block, home: Path) -> None:
    """Every command of the docs names a program, and options that the program has."""
    found = commands(block.text)
    assert found
    for words in found:
        try:
            _check(words)
        except AssertionError as error:
            pytest.fail(f"{block}: {' '.join(words)}: {error}")
        except SystemExit as end:
            # `--help` ends with 0.
            assert end.code == 0, f"{block}: {' '.join(words)}"


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_commands_of_ci_files_exist(block: Block, home: Path) -> None:
    """Every command in a CI file of the docs names a program, and options that the program has."""
    found = [words for run in re.findall(r"run: (.+)$", block.text, re.MULTILINE)
             for words in commands(f"$ {run}")]  # fmt: skip
    # A manifest and a file of Prometheus have none.
    assert found or block.text.startswith(("apiVersion: ", "scrape_configs:"))
    for words in found:
        _check(words)


def _cheap() -> list[Any]:
    """The commands of the docs that start no graph, each once."""
    found: dict[str, Any] = {}
    for block in blocks("console"):
        for words in commands(block.text):
            dry = {"--dry-run", "--chaos-dry-run", "--help"} & set(words)
            if dry and words[0] in ("graphquake", "pytest"):
                found.setdefault(" ".join(words), pytest.param(words, id=" ".join(words)))
    return list(found.values())


@pytest.mark.parametrize("words", _cheap())
def test_commands_that_start_nothing_work(words: list[str], home: Path) -> None:
    """The commands of the docs that only print something end well."""
    module = {"graphquake": "graphquake.machines.frontends.cli", "pytest": "pytest"}[words[0]]
    env = os.environ | {"PYTHONPATH": str(home)}
    command = [sys.executable, "-m", module, *words[1:]]
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _merged(base: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """A document with the keys of a part of another one in it."""
    found = dict(base)
    for key, value in part.items():
        old = found.get(key)
        found[key] = (
            _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return found


def _graph_of(block: Block) -> GraphSpec:
    """The graph of a block. A part of a graph file is read as a part of the README's."""
    document = tomllib.loads(block.text)
    if "graph" not in document:
        base = {
            "graph": "part",
            "roles": {
                "frontend": {"command": "a", "entry": "http://127.0.0.1:{port.http}"},
                "worker": {"command": "{python} -m a", "replicas": 2},
                "prefill": {"command": "{python} -m a"},
                "decode": {"command": "{python} -m a", "replicas": 2},
            },
            "load": {"model": "m"},
        }
        document = _merged(base, document)
    return read_graph(str(block), document, block.page)


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_graph_files_can_be_read(block: Block, home: Path) -> None:
    """The reader accepts every graph file of the docs, whole or a part."""
    assert _graph_of(block).roles


@pytest.mark.parametrize("block", blocks("plan"), ids=str)
def test_plans_can_be_read(block: Block) -> None:
    """Every plan of the docs is one, and is written as Graphquake itself would write it."""
    lines = [line for line in block.text.splitlines() if line and not line.startswith("#")]
    assert parse_plan(str(block), block.text.splitlines()).lines() == lines


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    """Every JSON text of the docs can be read."""
    assert json.loads(block.text)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_runs(block: Block, home: Path) -> None:
    """Every piece of Python of the docs runs beside the other files of the docs."""
    assert _file_name(block), f"{block}: its first line should name a file"
    path = home / "block.py"
    path.write_text(block.text, encoding="utf-8")
    assert runpy.run_path(str(path))


_SAMPLE_LABELS: Final = re.compile(r"^  ([a-z][a-z ]*?)(?: {2,}\S|$)", re.MULTILINE)


@pytest.mark.parametrize("block", blocks("text"), ids=str)
def test_printed_texts_have_the_labels_of_today(block: Block) -> None:
    """Every label in the docs' examples of output is a label that the code prints."""
    sources = [*(ROOT / "harness").rglob("*.py"), *(ROOT / "machines").rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    labels = set(_SAMPLE_LABELS.findall(block.text))
    assert {label for label in labels if f'"{label}"' not in code} == set()

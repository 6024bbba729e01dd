"""`graphquake init`: every shape can be read as it is written, and with its hints switched on; no file is overwritten."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graphquake.harness.errors import EXIT_INPUT, EXIT_KEPT
from graphquake.harness.spec.graph import load_graph
from graphquake.machines.frontends.cli import main
from graphquake.machines.frontends.commands.init_command import shapes

pytestmark = pytest.mark.simulated


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)


def test_the_shapes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a shape, the command lists every shape with its description, and writes nothing."""
    assert main(["init"]) == EXIT_KEPT
    out = capsys.readouterr().out
    assert list(shapes()) == re.findall(r"^  (\S+)  +\S", out, re.MULTILINE)
    assert {"server", "router", "haproxy", "nginx", "dynamo-agg", "dynamo-disagg"} == set(shapes())
    assert max(map(len, out.splitlines())) <= 100
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("shape", shapes())
def test_a_shape_can_be_read(shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A written file is a graph that is named after its file, and differs from the shape in that name alone."""
    assert main(["init", shape, "other.toml"]) == EXIT_KEPT
    assert capsys.readouterr().out.endswith("\n  graphquake try other.toml\n")
    assert load_graph("other.toml").name == "other"
    written, text = Path("other.toml").read_text().splitlines(), shapes()[shape].splitlines()
    changed = [(old, new) for old, new in zip(text, written, strict=True) if old != new]
    assert [(old.partition("=")[2], new.partition("=")[2]) for old, new in changed] == [
        (f' "{shape}"', ' "other"')
    ]


@pytest.mark.parametrize("shape", shapes())
def test_the_hints_of_a_shape_work(shape: str) -> None:
    """A shape can still be read if the keys in its comments are switched on. One of them is the oracle beside the file."""
    text, count = re.subn(r"^# ([\w.]+ +=)", r"\1", shapes()[shape], flags=re.MULTILINE)
    assert count >= 2
    Path("my.toml").write_text(text)
    spec = load_graph("my.toml")
    assert spec.promises.oracle == "oracle:expected"
    assert any("HF_HOME" in env for env in (spec.env, *(role.env for role in spec.roles)))


@pytest.mark.parametrize("shape", shapes())
def test_a_shape_has_no_fixed_port(shape: str) -> None:
    """Every port of a shape is drawn for each run. Only a comment may show one."""
    assert re.findall(r":\d+\b", re.sub(r"#.*", "", shapes()[shape])) == []


def test_a_name_in_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    """The name of the graph is a valid text in the file, whatever the file is called."""
    name = 'a "b" \\ é'
    assert main(["init", "server", f"{name}.toml"]) == EXIT_KEPT
    assert load_graph(f"{name}.toml").name == name
    assert 'graphquake try \'a "b"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["haprxy"], '"haprxy" is not a shape; did you mean "haproxy"?'),
        (["haproxy"], "my.toml: exists already, expected the name of a new file"),
        (["haproxy", "no/a.toml"], "no/a.toml: No such file or directory"),
        (["haproxy", "."], ".: exists already, expected the name of a new file"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown shape, a file that exists and a folder that does not are one line each, with status 2. Nothing is written."""
    Path("my.toml").write_text("mine")
    assert main(["init", *arguments]) == EXIT_INPUT
    assert capsys.readouterr().err == f"graphquake: {says}\n"
    assert [path.read_text() for path in Path().iterdir()] == ["mine"]


def test_a_shape_is_not_a_ready_made_graph() -> None:
    """A file with the name of a ready-made graph is read as the file that it is."""
    assert main(["init", "dynamo-agg", "dynamo-agg.toml"]) == EXIT_KEPT
    assert load_graph("dynamo-agg.toml").path == Path("dynamo-agg.toml").resolve()

"""The commands of the guide to CI, in a fresh repository: a graph file and its server, an installed Graphquake, and no PYTHONPATH."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from graphquake.machines.frontends.cli import main

from support.pages import DOCS, blocks
from support.toys import TOY

pytestmark = pytest.mark.roomy

GUIDE: Final = DOCS / "how-to/ci.md"
# Stands for nginx: it reads its servers from the configuration that Graphquake wrote, and answers as the toy's front does.
PROXY: Final = """
import os, re, sys
config = open(sys.argv[1]).read()
listen = re.search(r"listen 127.0.0.1:(\\d+);", config)[1]
ports = re.findall(r"server 127.0.0.1:(\\d+) ", config)
server = os.path.join(os.path.dirname(__file__), "server.py")
os.execv(sys.executable, [sys.executable, server, "front", "--port", listen, "--workers", ",".join(ports)])
"""
COMMANDS: Final = {
    "nginx": "{python} {graph_dir}/proxy.py {file.nginx.conf}",
    "vllm": "{python} {graph_dir}/server.py work --port {port.http}",
}
# Added to the guide's commands, to make their work small.
SMALL: Final = {
    "graphquake replay": "",
    "pytest test_scenarios.py": "-k rolling",
    "pytest --chaos-graph": "--chaos-budget 1runs --hypothesis-seed 1",
}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a graph file of the shape `nginx` and the files of the guide.

    In the graph file, the commands are changed, the oracle is switched on, and two bounds are lower, so that runs are short.
    """
    monkeypatch.chdir(tmp_path)
    assert main(["init", "nginx", "my.toml"]) == 0
    text = Path("my.toml").read_text()
    for program, command in COMMANDS.items():
        text = re.sub(
            rf'^(command +=) "{program} .*"', rf'\1 "{command}"', text, flags=re.MULTILINE
        )
    oracle = 'views_agree.within_s = 1\nanswers.oracle = "server:'
    text = text.replace('# answers.oracle = "oracle:', oracle)
    text = text.replace("window_s = 5", "window_s = 0.5")
    (scenarios,) = [block.text for block in blocks("toml") if block.page == GUIDE]
    Path("my.toml").write_text(f"{text}\n{scenarios}")
    for block in blocks("python"):
        if block.page == GUIDE:
            Path(block.text.splitlines()[0].removeprefix("# ")).write_text(block.text)
    Path("proxy.py").write_text(PROXY)
    shutil.copy(TOY, "server.py")
    return tmp_path


def guide_commands() -> list[str]:
    """The commands of the workflow file in the guide, in their order, without the installation."""
    (workflow,) = [block.text for block in blocks("yaml") if block.page == GUIDE]
    found = [run.partition("  #")[0] for run in re.findall(r"run: (.+)$", workflow, re.MULTILINE)]
    return [run for run in found if not run.startswith("pip install")]


def test_the_commands_of_the_guide_work_in_a_fresh_repository(repository: Path) -> None:
    """Each command of the workflow ends with 0. The oracle beside the graph file is found, and the reports are where they should be."""
    bin_dir = str(Path(sys.executable).parent)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {
        "PATH": f"{bin_dir}:{env['PATH']}",
        "GITHUB_STEP_SUMMARY": "step.md",
        "PYTEST_ADDOPTS": "-p no:cacheprovider",
    }
    said = []
    for command in guide_commands():
        more = next((text for begin, text in SMALL.items() if command.startswith(begin)), "")
        shell = ["bash", "-ec", f"{command} {more}".strip()]
        done = subprocess.run(shell, cwd=repository, env=env, capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        said.append(done.stdout)
    scenarios, replay, search, _ = said
    assert "1 passed" in scenarios
    assert "kept" in scenarios
    (graph,) = (repository / ".graphquake/scenarios").rglob("graph.json")
    assert "clients" not in json.loads(graph.read_text())["document"]["load"]
    assert "no cases" in replay
    assert "1 live: 1 kept" in search
    assert "kept" in (repository / "step.md").read_text()
    assert (repository / "report/junit.xml").is_file()

"""Every benchmark of `proptests/bench` starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.simulated

PROPTESTS = Path(__file__).parent
# A process of a graph, not a benchmark.
PLANTED = "gpu_hoard"
COMMANDS = sorted(
    path.stem
    for path in (PROPTESTS / "bench").glob("*.py")
    if path.stem != PLANTED and '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_benchmark_prints_its_help(name: str) -> None:
    """`python -m bench.NAME --help` imports all that the benchmark needs, and prints how to call it."""
    ran = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", "--help"],
        env={**os.environ, "PYTHONPATH": str(PROPTESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"usage: {name}.py")


def test_the_benchmarks_were_found() -> None:
    """The list above holds the benchmarks that the docs name."""
    assert {"bench", "bench_shrink", "search_bugs"} <= set(COMMANDS)

"""Build one Python environment for each release that an entry names, with uv.

The processes of a graph run in the environment of the release. The search itself runs in the environment of this process. An environment
is built once and kept outside the results, under a name that follows from its packages.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from realbugs.entries import Release

ROOT: Final = Path(__file__).parents[2]
# Written when an environment is complete. A folder without it is built again.
DONE: Final = "graphquake-complete.txt"


class EnvironmentFailedError(Exception):
    """An environment could not be built. The text holds the end of uv's output."""


def cache_folder() -> Path:
    """Return the folder of all environments."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "graphquake" / "environments"


def python_of(release: Release, cache: Path) -> Path | None:
    """Return the Python of a release, and build its environment first if it is not there.

    Args:
        release: the release.
        cache: the folder of all environments.

    Returns:
        The path of its Python, or None if the release has no packages: then the Python of this process runs the graph.

    Raises:
        EnvironmentFailedError: if uv is not installed, or cannot install the packages.
    """
    if not release.packages:
        return None
    # The graph's own processes import Graphquake, so another checkout needs other environments.
    key = "\n".join([sys.version, str(ROOT), *release.packages])
    folder = cache / hashlib.sha256(key.encode()).hexdigest()[:12]
    python = folder / "bin" / "python"
    if not (folder / DONE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        _uv("venv", "--quiet", "--python", sys.executable, str(folder))
        # In this folder, uv reads which dependencies of ai-dynamo to leave out (see pyproject.toml).
        _uv("pip", "install", "--quiet", "--python", str(python), "--editable", str(ROOT), *release.packages)  # fmt: skip
        (folder / DONE).write_text("\n".join(release.packages) + "\n", encoding="utf-8")
    return python


def _uv(*arguments: str) -> None:
    found = shutil.which("uv")
    if found is None:
        raise EnvironmentFailedError(
            "uv: found no such program, expected it on the PATH: pip install uv"
        )
    ran = subprocess.run([found, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if ran.returncode:
        said = "\n".join(ran.stderr.strip().splitlines()[-20:])
        raise EnvironmentFailedError(f"uv {' '.join(arguments)}:\n{said}")

"""Pack the agent's program with the modules that it imports into one text. It runs where nothing of Graphquake is installed.

The text is short enough for one environment variable (128 KiB), because the sources are compressed.
"""

from __future__ import annotations

import ast
import base64
import importlib.util
import json
import zlib
from functools import cache
from pathlib import Path
from typing import Final

from graphquake.harness.kubernetes.node import agent

_PACKAGE: Final = "graphquake."
# Packages are empty there. So nothing is imported that the agent does not need.
_LOADER: Final = """
import base64, importlib.util, json, sys, zlib
if sys.version_info < (3, 11):
    sys.exit("the agent needs Python 3.11 or later, and its image has " + sys.version.split()[0])
SOURCES = json.loads(zlib.decompress(base64.b64decode("{packed}")))
class Loader:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in SOURCES or any(one.startswith(name + ".") for one in SOURCES):
            return importlib.util.spec_from_loader(name, Loader, is_package=name not in SOURCES)
    @staticmethod
    def create_module(spec):
        return None
    @staticmethod
    def exec_module(module):
        name = module.__name__
        exec(compile(SOURCES.get(name, ""), name, "exec"), module.__dict__)
sys.meta_path.insert(0, Loader)
from {main} import main
main()
"""


@cache
def bundle() -> str:
    """Return the text of the whole program."""
    sources: dict[str, str] = {}
    waiting = [agent.__name__]
    while waiting:
        name = waiting.pop()
        if name not in sources:
            sources[name] = text = _source(name)
            waiting += imports_of(text)
    packed = base64.b64encode(zlib.compress(json.dumps(sources).encode(), 9)).decode()
    return _LOADER.replace("{packed}", packed).replace("{main}", agent.__name__)


def imports_of(text: str) -> list[str]:
    """Return the modules of Graphquake that a source imports."""
    found = (one for one in ast.walk(ast.parse(text)) if isinstance(one, ast.ImportFrom))
    return [one.module for one in found if one.module and one.module.startswith(_PACKAGE)]


def _source(name: str) -> str:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")

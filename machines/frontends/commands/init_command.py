"""`graphquake init`: write a graph file of one of the usual shapes, to be changed by the user.

The shapes are the files `shapes/*.toml`. The first line of each is a comment that describes it. Only the key `graph` is changed when a
shape is written: the graph is named after its file. A file that exists is never overwritten.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import textwrap
from importlib import resources
from pathlib import Path
from typing import Final

from graphquake.harness.errors import EXIT_KEPT, InputError
from graphquake.harness.spec.table import did_you_mean

FILE: Final = "my.toml"
WIDTH: Final = 100


def shapes() -> dict[str, str]:
    """Return the shapes: name -> text of the graph file."""
    folder = resources.files("graphquake.machines.frontends") / "shapes"
    files = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    return {
        file.name.removesuffix(".toml"): file.read_text(encoding="utf-8")
        for file in sorted(files, key=lambda file: file.name)
    }


def init_options(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `graphquake init`."""
    command.add_argument(
        "shape", nargs="?", metavar="SHAPE", help="the shape of the graph; none lists all shapes"
    )
    command.add_argument(
        "file",
        nargs="?",
        type=Path,
        default=Path(FILE),
        metavar="FILE",
        help=f"the file to write ({FILE}); a file that exists is not overwritten",
    )


def init(arguments: argparse.Namespace) -> int:
    """List the shapes, or write one. Return the exit status.

    Raises:
        InputError: if there is no such shape, or the file can't be written.
    """
    found = shapes()
    if arguments.shape is None:
        print(_listing(found))
        return EXIT_KEPT
    if arguments.shape not in found:
        raise InputError(
            f'"{arguments.shape}" is not a shape{did_you_mean(arguments.shape, found)}'
        )
    path: Path = arguments.file
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_named(found[arguments.shape], path.stem))
    except FileExistsError:
        raise InputError(f"{path}: exists already, expected the name of a new file") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    print(
        f"wrote {path}. Put in your commands and your model, then run:\n"
        f"  graphquake try {shlex.quote(str(path))}"
    )
    return EXIT_KEPT


def _named(text: str, name: str) -> str:
    """Return the text of a graph file with another name of the graph."""
    quoted = json.dumps(name, ensure_ascii=False)
    return re.sub(
        r'^(graph +=) ".*"$', lambda found: f"{found[1]} {quoted}", text, flags=re.MULTILINE
    )


def _listing(found: dict[str, str]) -> str:
    width = max(map(len, found)) + 2
    lines = ["Shapes of graph files. To write one: graphquake init SHAPE [FILE]"]
    for name, text in found.items():
        about = text.partition("\n")[0].removeprefix("# ")
        lines += textwrap.wrap(
            about,
            WIDTH,
            initial_indent=f"  {name:<{width}}",
            subsequent_indent=" " * (width + 2),
        )
    return "\n".join(lines)

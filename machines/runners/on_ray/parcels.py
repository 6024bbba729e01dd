"""Folders as bytes: the folder of a graph file travels to a node, and the folder of a run comes back.

The folder of a graph file holds the user's Python files and the files that commands read. Models and programs are too large for this. They
must be on the node already.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Final

from graphquake.harness.errors import InputError

# The most bytes of a graph file's folder. It is sent once for each slot.
PARCEL_MAX_BYTES: Final = 64 << 20
# Folders that hold no part of a graph. Hidden files and folders, such as `.git`, `.venv` and the results, stay behind too.
LEFT_BEHIND: Final = frozenset({"__pycache__", "node_modules", "venv"})


def pack(folder: Path) -> bytes:
    """Return all files of a folder, compressed."""
    return _packed(folder, sorted(folder.rglob("*")))


def pack_graph(file: Path) -> bytes:
    """Return the folder of a graph file, compressed, without hidden files and `LEFT_BEHIND`.

    Raises:
        InputError: if the folder is too large.
    """
    folder = file.parent
    paths = sorted(_parts_of_graph(folder))
    size = sum(one.stat().st_size for one in paths)
    if size > PARCEL_MAX_BYTES:
        raise InputError(
            f"{folder}: found {size / 2**20:.0f} MiB beside {file.name}, expected at most {PARCEL_MAX_BYTES >> 20} MiB: "
            "the folder of a graph file travels to each slot on Ray"
        )
    return _packed(folder, paths)


def _parts_of_graph(folder: Path) -> list[Path]:
    """The regular files of a graph file's folder that travel. A folder that stays behind is not looked into."""
    found: list[Path] = []
    for one in folder.iterdir():
        if one.name.startswith(".") or one.name in LEFT_BEHIND:
            continue
        if one.is_dir():
            if not one.is_symlink():
                found += _parts_of_graph(one)
        elif one.is_file():
            found.append(one)
    return found


def _packed(folder: Path, paths: list[Path]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1, dereference=True) as tar:
        for one in paths:
            if one.is_file():
                tar.add(one, str(one.relative_to(folder)), recursive=False)
    return out.getvalue()


def unpack(parcel: bytes, folder: Path) -> None:
    """Write the files of a parcel into a folder, which is made if it does not exist. No file can leave that folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(parcel), mode="r:gz") as tar:
        tar.extractall(folder, filter="data")

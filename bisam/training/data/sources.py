"""Tasks that are read from files: each kind of source stamps its files and reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from . import arrays, fetched, folder
from .images import Images

FOLDER, FILE = folder.PREFIX, arrays.PREFIX
FORMAT = "decoded images, form 1"


def stamp(name: str, root: Path) -> str:
    """A digest of the names, sizes and times of the files of a task; a ``DataError`` if a file or a folder is missing."""
    if name.startswith(FOLDER):
        rows = folder.stamped(name, root)
    else:
        there = [arrays.path_of(name, root)] if name.startswith(FILE) else fetched.there(name, root)
        rows = [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in there]
    digest = hashlib.sha256(FORMAT.encode())
    for row in rows:
        digest.update("\0".join(map(str, row)).encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()


def read(name: str, root: Path, key: str) -> Images:
    """All images of a task, whose stamp is the key; a ``DataError`` names a file that is missing, truncated or corrupt."""
    if name.startswith(FOLDER):
        return folder.read(name, root, key)
    return arrays.read(name, root) if name.startswith(FILE) else fetched.read(name, root)

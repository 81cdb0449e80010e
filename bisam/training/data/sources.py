"""Tasks that are read from files: each kind of source stamps its files and reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from . import arrays, cifar, fetched, folder, idx
from .images import Images

FOLDER, FILE = folder.PREFIX, arrays.PREFIX
FORMAT = "decoded images, form 1"


def stamp(name: str, root: Path) -> str:
    """A digest of the names, sizes and times of the files of a task, which changes when they do.

    Raises:
        DataError: a file or a folder is missing.
    """
    if name.startswith(FOLDER):
        return _digest(folder.stamped(name, root))
    there = [arrays.path_of(name, root)] if name.startswith(FILE) else fetched.there(name, root)
    found = ((path, path.stat()) for path in there)
    return _digest((str(path), status.st_size, status.st_mtime_ns) for path, status in found)


def read(name: str, root: Path, key: str) -> Images:
    """All images of a task; ``key`` is its stamp.

    Raises:
        DataError: a file is missing, truncated or corrupt; it is named.
    """
    if name.startswith(FOLDER):
        return folder.read(name, root, key)
    if name.startswith(FILE):
        return arrays.read(name, root)
    return idx.read(name, root) if name in fetched.IDX else cifar.read(name, root)


def _digest(rows: Iterable[tuple]) -> str:
    digest = hashlib.sha256(FORMAT.encode())
    for row in rows:
        digest.update("\0".join(map(str, row)).encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()
